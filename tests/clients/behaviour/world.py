"""Where the clients are tried: Redis, two nodes, nginx before them, a network that can be cut, and who gives tokens."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import jwt

from broker.redis.keys import Keys
from tests.api.calls import KEYS, Caller
from tests.clients.behaviour.driving import COMMANDS, Driver, driver, judge
from tests.support.cluster import SCALED
from tests.support.figures import note
from tests.support.nginx import NginxServer
from tests.support.node import START_S, NodeServer
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually_sync

SECRET = "a secret for tests, of 32 bytes or more"
SETTINGS: dict[str, Any] = SCALED | {
    "secret": SECRET,
    "leeway_s": 0,
    "api_keys": KEYS,
    "ping_s": 1,
    "presence_broadcast": "none",
    "history": "*=100000/300s/256MiB",
    # What a client may ask for is limited as in production.
    "requests_per_s": 50,
    "requests_burst": 100,
    "inbound_bytes_per_s": 2**17,
    "inbound_bytes_burst": 2**20,
}

_rooms = itertools.count(1)


class World:
    """All that runs for a whole file of tests. A context manager; blocks."""

    def __init__(self, **settings: Any) -> None:
        self.redis = RedisServer(appendonly="yes", appendfsync="always")
        self.nodes = [NodeServer(broker=self.redis.url, **SETTINGS | settings) for _ in range(2)]
        self.nginx = NginxServer(
            [node.port for node in self.nodes], changes={"worker_shutdown_timeout 300s": "worker_shutdown_timeout 1s"}
        )
        self.api = Caller(self.nodes[0].port)

    def __enter__(self) -> World:
        try:
            self.redis.start()
            for node in self.nodes:
                node.launch()
            for node in self.nodes:
                eventually_sync(node.ready, START_S)
            self.nginx.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.nginx.__exit__()
        logs = [node.log for node in self.nodes]
        for node in self.nodes:
            node.__exit__()
        self.redis.__exit__()
        assert not any("Traceback" in log for log in logs), next(log for log in logs if "Traceback" in log)[-3000:]

    async def healthy(self) -> None:
        """Return when every node takes connections again."""
        await asyncio.gather(*(node.wait_ready() for node in self.nodes))

    def slow_closes(self) -> int:
        """How many connections were closed for reading too slowly. Blocks."""
        lines = [line for node in self.nodes for line in node.get("/metrics")[1].decode().splitlines()]
        return sum(int(float(line.split()[1])) for line in lines if line.startswith("roomcast_slow_closes_total{"))

    def log(self, room: str) -> dict[int, str]:
        """What Redis holds: offset → tag."""
        entries: Any = self.redis.client.xrange(Keys().log(room))
        return {int(id.partition(b"-")[0]): fields[b"g"].decode() for id, fields in entries}


class Tokens:
    """Where clients get their tokens, over HTTP. ``refusals`` are answered with 503 before the next token is given."""

    def __init__(self) -> None:
        self.life_s = 3600.0
        self.refusals: dict[str, int] = {}
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Tokens]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        user = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode().strip("/")
        status, body = "200 OK", self.token(user)
        if self.refusals.get(user, 0):
            self.refusals[user] -= 1
            status, body = "503 Service Unavailable", "later"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body.encode())
        writer.close()

    def token(self, user: str) -> str:
        now = time.time()
        return jwt.encode({"user_id": user, "iat": int(now), "exp": now + self.life_s}, SECRET, algorithm="HS256")


class Play:
    """One scenario: both clients in a room of their own, talking all the time."""

    def __init__(self, world: World, network: TcpProxy, tokens: Tokens, clients: list[Driver]) -> None:
        self.world = world
        self.network = network
        """Between the clients and nginx."""
        self.tokens = tokens
        self.clients = clients
        self.room = f"behaviour-{next(_rooms)}"
        self.began_s = 0.0

    def marks(self) -> dict[str, int]:
        """How much each has seen: for ``all_see(…, since=…)``."""
        return {one.name: len(one.events) for one in self.clients}

    async def all_see(self, at: str, since: dict[str, int] | None = None, timeout_s: float = 20, **detail: Any) -> None:
        seen = (
            one.sees(at, since=(since or {}).get(one.name, 0), timeout_s=timeout_s, **detail) for one in self.clients
        )
        await asyncio.gather(*seen)

    async def enter(self) -> None:
        for one in self.clients:
            one.tell("join", room=self.room)
        await self.all_see("joined", room=self.room)

    async def progress(self, messages: int = 5) -> None:
        """Return when each client has got so many more of its own messages acknowledged."""

        async def more(one: Driver) -> None:
            goal = len(one.seen("ack")) + messages
            await one.until(lambda: len(one.seen("ack")) >= goal, f"{messages} more acks")

        await asyncio.gather(*(more(one) for one in self.clients))

    async def talk(self, every_ms: int = 60) -> None:
        for one in self.clients:
            one.tell("start_chatter", room=self.room, every_ms=every_ms)
        await self.progress()

    def fault(self) -> None:
        """From here on it is counted how long the clients take."""
        self.began_s = time.monotonic()

    async def back(self, what: str) -> None:
        """Return when both talk again: how long that took since the fault is noted."""
        await self.progress(2)
        note(f"{what}: both clients talk again after", time.monotonic() - self.began_s, "s")

    async def ends_well(self, what: str = "", *, resets: int = 0, failed: tuple[str, ...] = ()) -> None:
        """Everything sent is acknowledged, everybody has seen it, once and in order, and nothing else. ``failed``:
        codes with which a send may have ended instead."""
        if what:
            await self.back(what)
        for one in self.clients:
            one.tell("hush")
        for one in self.clients:
            await one.until(lambda one=one: answered(one), "an answer to everything sent", 40)  # type: ignore[misc]
        last = [f"the last of {one.name}" for one in self.clients]
        for one, data in zip(self.clients, last, strict=True):
            one.tell("send", room=self.room, data=data)
        for data in last:
            await self.all_see("message", room=self.room, data=data)
        log = await asyncio.to_thread(self.world.log, self.room)
        for one in self.clients:
            judge(one, self.room, log, resets=resets)
            codes = {event["code"] for event in one.seen("failed")}
            assert codes <= set(failed), f"{one.name}: sends ended in {codes}"
            if not resets:
                acked = {event["data"]: event["offset"] for event in one.seen("ack", room=self.room)}
                shown = {event["data"]: event["offset"] for event in one.seen("message", room=self.room)}
                assert acked.items() <= shown.items(), f"{one.name}: acknowledged and not seen, or elsewhere"


def answered(one: Driver) -> bool:
    hushed = one.seen("hushed")
    return bool(hushed) and len(one.seen("ack")) + len(one.seen("failed")) >= hushed[-1]["sent"]


@asynccontextmanager
async def play(world: World, *, life_s: float = 3600.0, heartbeat_s: float = 30.0) -> AsyncIterator[Play]:
    """Both clients are connected through the network and nginx, and in the room. ``life_s`` is that of a token,
    ``heartbeat_s`` how long a client waits for a pong (0: as the client has it)."""
    await world.healthy()
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(TcpProxy(world.nginx.port).running())
        tokens = await stack.enter_async_context(Tokens().running())
        tokens.life_s = life_s
        url = f"ws://127.0.0.1:{network.port}/ws"
        clients = await asyncio.gather(
            *(stack.enter_async_context(driver(kind, url, tokens.url, heartbeat_s)) for kind in COMMANDS)
        )
        scene = Play(world, network, tokens, clients)
        await scene.enter()
        yield scene
