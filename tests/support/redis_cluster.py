"""A real Redis Cluster for tests: masters with a replica each, on loopback ports, formed by hand.

Everything blocks; inside an event loop use ``asyncio.to_thread``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import redis

from tests.support.node import lasting_port
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually_sync

SLOTS = 16384
NODE_TIMEOUT_MS = 1500
"""After so long a silent master is taken for dead."""


class Known(NamedTuple):
    """A line of CLUSTER NODES."""

    id: str
    flags: list[str]
    slots: list[tuple[int, int]]


def went_through(client: Callable[..., Any], *arguments: object) -> bool:
    """Whether the command went through; another view of the cluster may have to reach this node first."""
    try:
        client(*arguments)
    except redis.ResponseError:
        return False
    return True


class RedisCluster:
    """A context manager. ``masters`` and ``replicas`` are what they were at the start, in pairs; see ``owner``."""

    def __init__(self, masters: int = 3, *, replicas: bool = True, **options: str) -> None:
        self.options = {
            "cluster_enabled": "yes",
            "cluster_node_timeout": str(NODE_TIMEOUT_MS),
            "cluster_require_full_coverage": "no",
            "cluster_replica_validity_factor": "0",
            "repl_diskless_sync_delay": "0",
            **options,
        }
        self._stack = contextlib.ExitStack()
        self.masters = [self._server() for _ in range(masters)]
        self.replicas = [self._server() for _ in range(masters)] if replicas else []

    def _server(self) -> RedisServer:
        port, bus = lasting_port(), lasting_port()
        server = RedisServer(**self.options | {"cluster_port": str(bus)})
        server.port = port
        server.cluster_bus_port = bus
        return server

    @property
    def servers(self) -> list[RedisServer]:
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        return self.url_of("")

    def url_of(self, credentials: str) -> str:
        """``credentials``: ``user:password@``."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.masters)
        return f"redis+cluster://{credentials}{hosts}"

    def __enter__(self) -> RedisCluster:
        try:
            self.start()
            self._form()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self) -> None:
        """The servers, which are no cluster yet; ``__exit__`` stops them."""
        for server in self.servers:
            self._stack.enter_context(server)

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _form(self) -> None:
        count = len(self.masters)
        for number, server in enumerate(self.masters):
            first, end = number * SLOTS // count, (number + 1) * SLOTS // count
            server.command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for number, server in enumerate(self.servers):
            server.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            self._meet(server)
        eventually_sync(lambda: all(self._knows(server, len(self.servers)) for server in self.servers), 20)
        for master, replica in zip(self.masters, self.replicas, strict=False):
            self.follow(replica, master)
        self.settled()

    def _meet(self, server: RedisServer) -> None:
        first = self.masters[0]
        server.command("CLUSTER", "MEET", "127.0.0.1", first.port, first.cluster_bus_port)

    def _knows(self, server: RedisServer, count: int) -> bool:
        nodes = self.view(server)
        return len(nodes) == count and not any("handshake" in node.flags for node in nodes)

    def view(self, server: RedisServer) -> list[Known]:
        """CLUSTER NODES: who this server knows."""
        known = []
        for line in str(server.text("CLUSTER", "NODES")).splitlines():
            id, _, flags, _, _, _, _, _, *slots = line.split()
            ranges = [part.split("-") for part in slots if not part.startswith("[")]
            known.append(Known(id, flags.split(","), [(int(each[0]), int(each[-1])) for each in ranges]))
        return known

    def follow(self, replica: RedisServer, master: RedisServer) -> None:
        """Make one the replica of the other, and wait until it has its data."""
        eventually_sync(lambda: went_through(replica.command, "CLUSTER", "REPLICATE", self.id(master)))
        eventually_sync(lambda: replica.info("replication").get("master_link_status") == "up", 20)

    def settled(self, timeout_s: float = 90.0) -> None:
        """Return when every server that runs has every slot covered, and replicas are known as such."""
        count = len(self.masters)

        def agreed() -> bool:
            for server in self.servers:
                if server.process is None:
                    continue
                info = self.state(server)
                masters = [n for n in self.view(server) if n.flags[-1] == "master" and n.slots]
                if info["cluster_state"] != "ok" or info["cluster_slots_ok"] != str(SLOTS) or len(masters) != count:
                    return False
            return True

        eventually_sync(agreed, timeout_s)

    def state(self, server: RedisServer) -> dict[str, str]:
        """CLUSTER INFO."""
        lines = str(server.text("CLUSTER", "INFO")).splitlines()
        return dict(line.split(":", 1) for line in lines)

    def id(self, server: RedisServer) -> str:
        return str(server.text("CLUSTER", "MYID"))

    def owner(self, slot: int) -> RedisServer:
        """The server that has the slot, as it sees it itself."""
        for server in self.servers:
            if server.process is None or server.info("replication")["role"] != "master":
                continue
            mine = next(node for node in self.view(server) if "myself" in node.flags)
            if any(first <= slot <= last for first, last in mine.slots):
                return server
        raise AssertionError(f"nobody has slot {slot}")

    def replica_of(self, master: RedisServer) -> RedisServer:
        return self.replicas[self.masters.index(master)]

    def promoted(self, replica: RedisServer, timeout_s: float = 90.0) -> None:
        """Return once this replica is a master with slots, as all others know."""
        eventually_sync(lambda: replica.info("replication")["role"] == "master", timeout_s)

    def add_master(self) -> RedisServer:
        """One more, without slots."""
        server = self._server()
        self._stack.enter_context(server)
        self._meet(server)
        self.masters.append(server)
        running = [each for each in self.servers if each.process is not None]
        eventually_sync(lambda: all(self._knows(each, len(running)) for each in running), 20)
        eventually_sync(lambda: self.state(server)["cluster_state"] == "ok", 20)
        return server

    def move_slot(self, slot: int, target: RedisServer, *, batch: int = 10) -> int:
        """As redis-cli reshards: key by key while clients work. Returns how many keys moved."""
        source = self.owner(slot)
        source_id, target_id = self.id(source), self.id(target)
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        moved = 0
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, batch):
            source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            moved += len(keys)
        target.command("CLUSTER", "SETSLOT", slot, "NODE", target_id)
        source.command("CLUSTER", "SETSLOT", slot, "NODE", target_id)
        return moved

    def flush(self) -> None:
        for server in self.servers:
            if server.process is not None and server.info("replication")["role"] == "master":
                server.command("FLUSHALL")
