"""The stage of every scenario: Redis, the server under test alone on one core, everything else on another.

The names of the room in Redis and the shape of its entries are those of broker/redis/keys.py and broker/envelope.py,
written here once more because load tests import neither a node nor a broker; tests/loadtests checks that they agree.
"""

from __future__ import annotations

import os
import resource
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import redis

from loadtests.errors import SetupError
from loadtests.native import PROGRAMS, build
from loadtests.processes import Child, Native, free_port, wait_for_port, wait_until_ready

Kind = Literal["node", "baseline"]
KINDS: tuple[Kind, ...] = ("node", "baseline")
Presence = Literal["all", "rooms", "none"]
Through = Literal["publish", "append"]
Dialect = Literal["roomcast", "bare", "greeted", "socketio", "centrifugo"]
"""How a client gets into the room: native/dialect.h."""

ROOM = "bench"
CHANNEL = f"roomcast:{{0}}:room:{ROOM}"
META = f"roomcast:{{0}}:meta:{ROOM}"
LOG = f"roomcast:{{0}}:log:{ROOM}"
APPEND = Path(__file__).parent.parent / "broker" / "redis" / "lua" / "append.lua"
ONLINE = "roomcast:{0}:presence:all"
EPOCH = "loadtest"
PATH = "/ws?user={n}"
"""Every connection is a user of its own; the client puts its number for ``{n}``."""
SOURCES = 8
"""Source addresses 127.0.0.1 … 127.0.0.8: one has only 28,000 ports towards one server port."""
IN_FLIGHT = 64
NODE_COMMANDS = ("evalsha", "eval", "subscribe", "unsubscribe", "ping")
"""Nearly all that a node sends to Redis."""
NODE_COMMAND = shlex.join([sys.executable, "-m", "server", "serve"])
START_S = 20.0


@dataclass(frozen=True)
class Server:
    """A server under test that is ready for clients."""

    kind: str
    child: Child
    port: int

    def pids(self) -> list[int]:
        """Of all its processes."""
        return [self.child.pid]


class Stage:
    """Holds what outlives one sample: the compiled programs and Redis. Use as a context."""

    def __init__(self, *, node: str = NODE_COMMAND, presence: Presence = "rooms", start_s: float = START_S) -> None:
        """``start_s``: how long a server may take until it is ready."""
        self.node = node
        self.start_s = start_s
        self.presence = presence
        cores = sorted(os.sched_getaffinity(0))
        self.server_core = cores[0] if len(cores) > 1 else None
        self.load_core = cores[1] if len(cores) > 1 else None
        self._stack = ExitStack()
        self._programs: dict[str, Path] = {}
        self._baseline_channel = CHANNEL

    def __enter__(self) -> Self:
        try:
            self._programs = {name: build(name) for name in PROGRAMS}
            self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="roomcast-loadtests-")))
            self._start_redis()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def parameters(self) -> dict[str, object]:
        """What every report names about the node."""
        return {"presence": self.presence, "node": "roomcast" if self.node == NODE_COMMAND else self.node}

    def _start_redis(self) -> None:
        self.redis_port = free_port()
        # No limit on the subscribers' buffers: a server that falls behind is measured as late, not cut off by Redis.
        options = f"--port {self.redis_port} --bind 127.0.0.1 --appendonly no --maxmemory-policy noeviction"
        command = ["redis-server", *options.split(), "--save", "", "--client-output-buffer-limit", "pubsub 0 0 0"]
        command += ["--dir", str(self.folder)]
        child = Child("redis-server", command, folder=self.folder, core=self.load_core)
        self._stack.enter_context(child)
        wait_for_port(self.redis_port, child, timeout_s=START_S)
        self._redis = self._stack.enter_context(redis.Redis(port=self.redis_port, protocol=2, decode_responses=True))

    @contextmanager
    def server(self, kind: Kind) -> Iterator[Server]:
        """A fresh server on an empty Redis, in which the room's log is open and empty."""
        self.empty_redis()
        with self.another_server(kind) as server:
            yield server

    def empty_redis(self) -> None:
        self._redis.flushall()
        self._redis.hset(META, mapping={"e": EPOCH, "o": 0, "g": "0", "b": 0})

    @contextmanager
    def another_server(self, kind: Kind, *, name: str = "", **settings: str) -> Iterator[Server]:
        """One beside others on the same Redis. ``settings`` are those of a node, by their names in
        server/settings.py."""
        port = free_port()
        command: list[str | Path]
        if kind == "baseline":
            command = [self._programs["baseline"], "--port", str(port), "--redis-port", str(self.redis_port)]
            command += ["--channel", self._baseline_channel, "--room", ROOM]
        else:
            names = {"{port}": str(port), "{redis_port}": str(self.redis_port), "{channel}": CHANNEL, "{room}": ROOM}
            command = [names.get(word, word) for word in shlex.split(self.node)]
        environment = self._settings(port) | {f"ROOMCAST_{key.upper()}": value for key, value in settings.items()}
        with Child(name or kind, command, folder=self.folder, core=self.server_core, environment=environment) as child:
            wait_until_ready(port, child, timeout_s=self.start_s)
            yield Server(kind, child, port)
            child.check()

    @contextmanager
    def load_here(self) -> Iterator[None]:
        """This process is the load: it stays on the load's core meanwhile."""
        allowed = os.sched_getaffinity(0)
        if self.load_core is not None:
            os.sched_setaffinity(0, {self.load_core})
        try:
            yield
        finally:
            os.sched_setaffinity(0, allowed)

    @contextmanager
    def local_baseline(self) -> Iterator[None]:
        """The baseline passes on what its own clients say, without Redis."""
        self._baseline_channel = "-"
        try:
            yield
        finally:
            self._baseline_channel = CHANNEL

    def _settings(self, port: int) -> dict[str, str]:
        return {
            "ROOMCAST_HOST": "127.0.0.1",
            "ROOMCAST_PORT": str(port),
            "ROOMCAST_BROKER": f"redis://127.0.0.1:{self.redis_port}/0",
            "ROOMCAST_DEV": "1",
            "ROOMCAST_PRESENCE_BROADCAST": self.presence,
            "ROOMCAST_LOG_LEVEL": "warning",
        }

    def client(self, server: Server, *, path: str = PATH, dialect: Dialect = "roomcast") -> Native:
        """A load client without connections, on the load core."""
        command: list[str | Path] = [
            self._programs["client"],
            "--host",
            "127.0.0.1",
            "--port",
            str(server.port),
            "--path",
            path,
        ]
        command += ["--dialect", dialect, "--room", ROOM, "--sources", str(SOURCES)]
        return Native("client", command, folder=self.folder, core=self.load_core)

    def subscribed(self, channel: str = CHANNEL) -> int:
        """How many connections to Redis hear the room."""
        ((_, count),) = self._redis.pubsub_numsub(channel)
        return int(count)

    def redis_use(self) -> dict[str, float]:
        """What Redis used so far: CPU, bytes from and to its connections, memory, how often it read from one of them,
        and the commands it was sent by nodes: scripts and subscriptions. What a script does inside it is no command."""
        found = self._redis.info("cpu", "stats", "memory", "commandstats")
        stats = [found[f"cmdstat_{name}"] for name in NODE_COMMANDS if f"cmdstat_{name}" in found]
        return {
            "redis_cpu_s": float(found["used_cpu_sys"]) + float(found["used_cpu_user"]),
            "redis_in_bytes": float(found["total_net_input_bytes"]),
            "redis_out_bytes": float(found["total_net_output_bytes"]),
            "redis_used_bytes": float(found["used_memory"]),
            "redis_reads": float(found["total_reads_processed"]),
            "redis_calls": float(sum(int(each["calls"]) for each in stats)),
        }

    def online(self) -> int:
        """How many users Redis has online; beside them the hash holds its epoch and version."""
        return max(0, int(self._redis.hlen(ONLINE)) - 2)

    def publisher(self, through: Through | Literal["bare"]) -> Native:
        """A publisher that starts with offset 1 of the room's log, on the load core. ``append`` writes the log as a
        node does, through its script; ``publish`` sends the same envelopes without the log, at less cost for Redis.
        ``bare`` sends the data alone, on the channel ``bench``, to servers that are no nodes."""
        script = "-" if through == "publish" else "bare"
        if through == "append":
            script = str(self._redis.script_load(APPEND.read_text()))
        command: list[str | Path] = [
            self._programs["publisher"],
            "--redis-port",
            str(self.redis_port),
            "--channel",
            ROOM if through == "bare" else CHANNEL,
        ]
        command += ["--epoch", EPOCH, "--meta", META, "--log", LOG, "--script", script]
        return Native("publisher", command, folder=self.folder, core=self.load_core)


def allow_open_files(connections: int) -> None:
    """Raise this process's limit of open files, which children inherit, to the hard one; :class:`SetupError` if even
    that is too low for so many connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and connections + 200 > hard:
        raise SetupError(f"{connections} connections need {connections + 200} open files, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
