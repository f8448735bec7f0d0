"""A real redis-server for tests: on a unix socket and a free loopback port, in a directory of its own."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.waiting import eventually_sync


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """One server. A context manager; what it starts it also stops, by pid, and its directory goes with it.

    ``options`` are lines of redis.conf given as keywords (``maxmemory="20mb"``, dashes as underscores).
    Data survives ``restart()`` only if saved before (``command("SAVE")``) or with ``appendonly="yes"``.
    """

    def __init__(self, **options: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rc-redis-", dir="/tmp"))
        self.socket = str(self.directory / "s")
        self.port = free_port()
        self.plain_port = True
        """False: the port is for TLS alone."""
        self.cluster_bus_port: int | None = None
        """Where the servers of a cluster talk to each other, if it is one (tests/support/redis_cluster.py)."""
        self.options = {"save": "", "appendonly": "no", "enable-debug-command": "local"} | {
            name.replace("_", "-"): value for name, value in options.items()
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._client: redis.Redis | None = None

    @property
    def url(self) -> str:
        """Through the unix socket."""
        return f"unix://{self.socket}"

    @property
    def tcp_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        if self._client is not None:
            self._client.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start and wait until commands are answered."""
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(self._arguments(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        eventually_sync(self._answers)

    def _arguments(self) -> list[str]:
        arguments = ["redis-server", "--dir", str(self.directory), "--daemonize", "no", "--bind", "127.0.0.1"]
        ports = ["--port", str(self.port)] if self.plain_port else ["--port", "0", "--tls-port", str(self.port)]
        arguments += [*ports, "--unixsocket", self.socket]
        for name, value in self.options.items():
            arguments += [f"--{name}", *(value.split() or [""])]
        return arguments

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"redis-server ended: {(self.directory / 'log').read_text()[-2000:]}")
        try:
            return self.command("PING") in (True, b"PONG")
        except (redis.ConnectionError, redis.BusyLoadingError):
            return False

    @property
    def client(self) -> redis.Redis:
        """A plain client on the unix socket, for the test's own view of the server. No retries, RESP2."""
        if self._client is None:
            self._client = redis.Redis(
                unix_socket_path=self.socket,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=30,
                client_name="test",
            )
        return self._client

    def command(self, *arguments: Any) -> Any:
        """One command, its reply as redis-py gives it. Blocks."""
        return self.client.execute_command(*arguments)  # type: ignore[no-untyped-call]

    def text(self, *arguments: Any) -> str:
        """The same, where the reply is text."""
        reply: bytes | str = self.command(*arguments)
        return reply.decode() if isinstance(reply, bytes) else reply

    def info(self, section: str = "everything") -> dict[str, Any]:
        return dict(self.client.info(section))

    def subscribers(self, channel: str, *, sharded: bool = False) -> int:
        """How many connections are subscribed to one Redis channel."""
        kind = "SHARDNUMSUB" if sharded else "NUMSUB"
        [(_, count)] = self.command(f"PUBSUB {kind}", channel)
        return int(count)

    def pause(self) -> None:
        """Freeze the process (SIGSTOP)."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """``kill -9``: nothing is saved."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ordered end. Idempotent."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.process = None
        if self._client is not None:
            self._client.connection_pool.disconnect()

    def restart(self, *, empty: bool = False) -> None:
        """``kill -9`` and start again on the same socket and port; ``empty`` forgets what was on disk."""
        self.kill()
        if empty:
            for path in self.directory.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.suffix in (".rdb", ".aof"):
                    path.unlink()
        self.start()
