"""What an error reply of Redis means to a caller. Pure."""

from __future__ import annotations

from broker.base import BrokerError, OutcomeUnknown, Unavailable

REFUSED = {
    "OOM": "Redis is out of memory: raise maxmemory or shorten the history",
    "READONLY": "Redis is a replica now",
    "MASTERDOWN": "Redis is a replica that lost its master",
    "NOREPLICAS": "Redis has too few replicas to accept writes",
    "MISCONF": "Redis cannot write to its disk",
    "NOPERM": "the Redis user may not do this: compare its rights with broker/redis/acl.py",
    "NOAUTH": "Redis wants a password: put it into the broker URL",
    "WRONGPASS": "Redis refuses user name or password",
    "BUSY": "Redis is busy with a script of somebody else: SCRIPT KILL ends it",
    "LOADING": "Redis is still loading its data",
    "NOSCRIPT": "Redis keeps forgetting the scripts",
    "CLUSTERDOWN": "nobody in the Redis cluster has this part of the keys",
    "MOVED": "another master of the Redis cluster has the keys",
    "ASK": "Redis is moving the keys to another master",
    "TRYAGAIN": "Redis is moving the keys to another master",
    "EXECABORT": "Redis refused the transaction",
}
"""First words of replies that say: nothing was done."""

NOPERM_IN_SCRIPT = ("ERR The user executing the script", "ERR ACL failure in script")
"""How NOPERM reads from inside a script: until Redis 7.0, and from 7.2 and in Valkey."""

DEMOTED = ("READONLY", "MASTERDOWN")
"""This server is no master any more: the connections have to be built again."""


MOVED = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN")
"""Refused whole, because the keys are elsewhere or on their way: again, once it is known where they are."""

UNFIT = (*DEMOTED, "NOREPLICAS")
"""A heartbeat refused like this comes from a master that others have perhaps replaced already."""


class Elsewhere(Unavailable):
    """Not done, because the keys are on another master of the cluster or on their way there."""


class ConnectionLost(Exception):
    """The connection ended before the answer came. The text says why."""


def first_word(error: BaseException) -> str:
    return str(error).partition(" ")[0]


def broker_error(error: BaseException) -> BrokerError:
    """The outcome for the caller of a command that got this error reply, or whose connection was lost."""
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, ConnectionLost):
        return OutcomeUnknown(f"sent to Redis, but no answer ({error}): retry with the same key")
    word = "NOPERM" if str(error).startswith(NOPERM_IN_SCRIPT) else first_word(error)
    hint = REFUSED.get(word)
    if hint is not None:
        return (Elsewhere if word in MOVED else Unavailable)(f"{hint} ({error})")
    return OutcomeUnknown(f"Redis answered with an error: {error}")
