"""Real sentinels for tests: three of them, a master and two replicas, on loopback ports. Everything blocks."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import redis

from tests.support.node import lasting_port
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually_sync

T = TypeVar("T")
NAME = "main"
DOWN_AFTER_MS = 1000
"""After so long a silent master is taken for dead."""
FAILOVER_TIMEOUT_MS = 4000


def _but_for_lost_connections(ask: Callable[[], T]) -> Callable[[], T | None]:
    """None where a connection is lost: the sentinels end those of a server whose part changes."""

    def asked() -> T | None:
        with contextlib.suppress(redis.ConnectionError):
            return ask()
        return None

    return asked


class SentinelServer(RedisServer):
    """One sentinel. What it learns it writes into its configuration, which so outlives it."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.port = lasting_port()
        self._configuration = self.directory / "sentinel.conf"
        here = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.directory}", f"unixsocket {self.socket}"]
        self._configuration.write_text("\n".join([*here, *lines, ""]))

    def _arguments(self) -> list[str]:
        return ["redis-server", str(self._configuration), "--sentinel"]


class RedisSentinels:
    """A context manager. ``servers`` are the data servers; who of them is the master, the sentinels decide."""

    def __init__(self, *, down_after_ms: int = DOWN_AFTER_MS, **options: str) -> None:
        self.down_after_s = down_after_ms / 1000
        self._stack = contextlib.ExitStack()
        common = {"repl_diskless_sync_delay": "0", "repl_ping_replica_period": "1", **options}
        self.servers = [RedisServer(**common) for _ in range(3)]
        for server in self.servers:
            server.port = lasting_port()
        lines = [
            f"sentinel monitor {NAME} 127.0.0.1 {self.servers[0].port} 2",
            f"sentinel down-after-milliseconds {NAME} {down_after_ms}",
            f"sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT_MS}",
        ]
        self.sentinels = [SentinelServer(lines) for _ in range(3)]

    @property
    def url(self) -> str:
        return self.url_of("")

    def url_of(self, credentials: str) -> str:
        """``credentials``: ``user:password@``, for the data servers."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{credentials}{hosts}/{NAME}"

    def __enter__(self) -> RedisSentinels:
        try:
            for server in self.servers:
                self._stack.enter_context(server)
            for replica in self.servers[1:]:
                replica.command("REPLICAOF", "127.0.0.1", self.servers[0].port)
            for sentinel in self.sentinels:
                self._stack.enter_context(sentinel)
            self.settled()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @property
    def master(self) -> RedisServer:
        """Who the first sentinel that answers says it is."""
        for sentinel in self.sentinels:
            with contextlib.suppress(redis.RedisError):
                _, port = sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
                return next(server for server in self.servers if server.port == int(port))
        raise AssertionError("no sentinel answers")

    @property
    def replicas(self) -> list[RedisServer]:
        master = self.master
        return [server for server in self.servers if server is not master]

    def settled(self, timeout_s: float = 90.0) -> None:
        """Return when all servers run as the sentinels want it and the sentinels know all of each other."""

        @_but_for_lost_connections
        def agreed() -> bool:
            master = self.master
            for server in self.servers:
                info = server.info("replication")
                if server is not master and (info["role"] != "slave" or info.get("master_link_status") != "up"):
                    return False
                if server is not master and int(info["master_port"]) != master.port:
                    return False
            known = [sentinel.info("sentinel")["master0"] for sentinel in self.sentinels]
            return all(one["slaves"] == 2 and one["sentinels"] == 3 and one["status"] == "ok" for one in known)

        eventually_sync(agreed, timeout_s)

    def promoted(self, old: RedisServer, timeout_s: float = 90.0) -> RedisServer:
        """Return the new master once there is one in the place of the old."""

        @_but_for_lost_connections
        def found() -> RedisServer | None:
            new = self.master
            return new if new is not old and new.info("replication")["role"] == "master" else None

        new = eventually_sync(found, timeout_s)
        assert new is not None
        return new

    def takes_writes(self) -> bool:
        """Whether the master is one, and has as many replicas as ``min_replicas_to_write`` wants."""
        try:
            master = self.master
            needed = int(master.client.config_get("min-replicas-to-write")["min-replicas-to-write"] or 0)
            told = master.info("replication")
        except (redis.RedisError, AssertionError):
            return False
        return told["role"] == "master" and int(told.get("min_slaves_good_slaves", 0)) >= needed

    @contextlib.contextmanager
    def watched(self) -> Iterator[Callable[[], float]]:
        """Yields who tells when (``time.monotonic()``) it last had no master that takes writes. Two sentinels that take
        the lead one after the other promote two, and then nobody writes for ten seconds and more."""
        over = threading.Event()
        last_s = time.monotonic()

        def watch() -> None:
            nonlocal last_s
            while not over.wait(0.05):
                if not self.takes_writes():
                    last_s = time.monotonic()

        thread = threading.Thread(target=watch, name="sentinels watched")
        thread.start()
        try:
            yield lambda: last_s
        finally:
            over.set()
            thread.join()

    def flush(self) -> None:
        self.master.command("FLUSHALL")
