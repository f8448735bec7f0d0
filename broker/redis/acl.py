"""The rights a node needs in Redis, and no more. The contract suite runs as this user."""

from __future__ import annotations

CONNECTION = ("auth", "select", "client|setname", "info", "ping", "script|load", "evalsha")
CHANNELS = ("subscribe", "unsubscribe", "publish", "ssubscribe", "sunsubscribe", "spublish")
TOPOLOGY = ("cluster|nodes",)
"""On a cluster a node asks who has which slots."""
SEARCH = ("scan",)
"""What is kept about a user is looked for in all rooms. SCAN shows the names of keys, nothing else."""
KEYS = (
    *("get", "set", "del", "exists", "pexpire", "time"),
    *("hget", "hset", "hmget", "hgetall", "hdel", "hexists", "hincrby", "hlen", "hrandfield"),
    *("xadd", "xlen", "xrange", "xtrim"),
    *("zadd", "zrem", "zscore", "zrange", "zrangebyscore"),
)
"""Used inside the scripts: the user who runs a script needs the right to its commands."""


def acl_rules(prefix: str = "roomcast") -> list[str]:
    """The rules of ``ACL SETUSER <name> on >password …`` for an installation with this prefix."""
    return [
        "resetkeys",
        "resetchannels",
        "-@all",
        f"~{prefix}:*",
        f"&{prefix}:*",
        *(f"+{command}" for command in (*CONNECTION, *CHANNELS, *TOPOLOGY, *SEARCH, *KEYS)),
    ]
