"""Users on real nodes and somebody who watches them come and go, for tests that break something in between.

What is right is known here: every connection that is open. ``settled`` waits until Redis holds exactly that and nothing
else (no dead node, no grace period, no share of anybody who is gone), and until the observer has seen it too; whatever
events that took are then counted.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType

from broker.redis.keys import Keys
from tests.support.busy import busy_s
from tests.support.node import START_S, NodeServer
from tests.support.peer import Frame, Peer
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually_sync

ROOM = "r"
FIFTH: dict[str, object] = {
    "heartbeat_s": 0.4,
    "lease_s": 1.6,
    "grace_s": 1,
    "ping_s": 2,
    "linger_s": 0.2,
    "drain_s": 1,
    "requests_per_s": 10_000,
    "requests_burst": 10_000,
}
"""A fifth of the times of production."""
SLACK_S = 1.5
"""For a busy machine, on top of a bound."""

Events = Counter[tuple[str, str]]
"""(user, "online" or "offline") -> how often."""


class Servers:
    """One Redis and its nodes, lent to one test after the other."""

    def __init__(self, redis_server: RedisServer, nodes: list[NodeServer], settings: dict[str, object]) -> None:
        self.redis = redis_server
        self.nodes = nodes
        self.settings = settings
        self.heartbeat_s, self.lease_s, self.grace_s = (
            float(str(settings[name])) for name in ("heartbeat_s", "lease_s", "grace_s")
        )
        self.quiet_s = self.lease_s + 3 * self.heartbeat_s + self.grace_s
        """After so long without a fault everything is exact (docs/guarantees.md)."""
        self.crash_s = self.lease_s + 2 * self.heartbeat_s + self.grace_s
        """Offline after a node crash."""
        self.close_s = self.heartbeat_s + self.grace_s
        """Offline after a clean close."""


@contextmanager
def servers(nodes: int = 3, *, node_class: type[NodeServer] = NodeServer, **settings: object) -> Iterator[Servers]:
    """Started and stopped. ``settings`` are those of the nodes, over a fifth of the times of production."""
    chosen = FIFTH | settings
    with RedisServer() as redis_server:
        chosen["broker"] = redis_server.url
        started = [node_class(port=None, **chosen) for _ in range(nodes)]
        try:
            for node in started:
                node.launch()
            for node in started:
                eventually_sync(node.ready, START_S)
            yield Servers(redis_server, started, chosen)
        finally:
            for node in started:
                node.__exit__()


class Observer(Peer):
    """Hears of everywhere and of the room, on a node that stays."""

    def __init__(self, user: str = "observer") -> None:
        super().__init__(user)
        self.begins: dict[str | None, int] = {}
        self.first: dict[str | None, set[str]] = {}

    async def begin(self, url: str) -> None:
        """Connect and know who is here, oneself included; what comes from now on counts."""
        await self.connect(url)
        reply = await self.ask("join", room=ROOM, presence=True)
        assert reply["ok"], reply
        for room in (None, ROOM):
            deadline_s = time.monotonic() + 10
            while self.user not in (users := await self.roster(room)):
                assert time.monotonic() < deadline_s, f"{self.user} is not in the roster: {users}"
            self.first[room] = set(users)
            self.begins[room] = 1 + max(i for i, frame in enumerate(self.frames) if _is_list(frame, room))

    async def roster(self, room: str | None) -> list[str]:
        """What ``get_presence`` says."""
        before = len(self.frames)
        reply = await self.ask("get_presence", **({} if room is None else {"room": room}))
        assert reply["ok"], reply
        [users] = [frame["users"] for frame in self.frames[before:] if _is_list(frame, room)]
        return list(users)

    def changes(self, room: str | None) -> list[tuple[str, str]]:
        """(user, status) in the order of arrival."""
        return [
            (frame["user_id"], frame["status"])
            for frame in self.frames[self.begins[room] :]
            if frame.get("type") == "presence" and frame.get("room") == room
        ]

    def events(self, room: str | None) -> Events:
        return Counter(self.changes(room))

    def sees(self, room: str | None) -> set[str]:
        """Who is here, by what was told since the beginning."""
        users = set(self.first[room])
        for user, status in self.changes(room):
            (users.add if status == "online" else users.discard)(user)
        return users

    async def saw(self, user: str, status: str, room: str | None = None, timeout_s: float = 30.0) -> None:
        await self.until(lambda: (user, status) in self.changes(room), timeout_s)


def _is_list(frame: Frame, room: str | None) -> bool:
    return frame.get("type") == "presence_list" and frame.get("room") == room


class Stage:
    """One test on some servers. An async context: entering waits until nobody is there, leaving sends all away."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.redis = servers.redis
        self.nodes = list(servers.nodes)
        self.keys = Keys()
        self.homes: dict[Peer, NodeServer] = {}
        self.observer = Observer()
        self.peers: list[Peer] = [self.observer]
        self.log_before: dict[NodeServer, int] = {}
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Stage:
        for node in self.nodes:
            if node.process is None:
                node.launch()
        await asyncio.gather(*(node.wait_ready() for node in self.nodes))
        await self.exact(2 * self.servers.quiet_s + SLACK_S)
        self.log_before = {node: len(node.log) for node in self.nodes}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for node in self.running:
            node.resume()
        await asyncio.gather(*(one.close() for one in self.peers), return_exceptions=True)
        if kind is None:
            for node in self.nodes:
                text = node.log[self.log_before[node] :]
                assert "Traceback" not in text and "never retrieved" not in text, text[-3000:]

    @property
    def running(self) -> list[NodeServer]:
        return [node for node in self.nodes if node.process is not None]

    @asynccontextmanager
    async def another_node(self, **settings: object) -> AsyncIterator[NodeServer]:
        """One more, for this test alone."""
        node = NodeServer(port=None, **self.servers.settings | settings)
        self.log_before[node] = 0
        self.nodes.append(node)
        try:
            node.launch()
            await node.wait_ready()
            yield node
        finally:
            self.nodes.remove(node)
            node.__exit__()

    # Users.

    async def watch(self, node: NodeServer) -> Observer:
        """The observer takes its place; who comes before it makes no event."""
        await self.observer.begin(node.ws_url)
        self.homes[self.observer] = node
        return self.observer

    async def open(self, user: str, node: NodeServer, *, join: bool = True, url: str | None = None) -> Peer:
        """One more connection of a user, in the room if wanted."""
        one = Peer(user)
        self.peers.append(one)
        await one.connect(url or node.ws_url)
        self.homes[one] = node
        if join:
            await self.join(one)
        return one

    async def open_all(self, users: list[str], *nodes: NodeServer) -> list[Peer]:
        """One connection of each user, the nodes taking turns."""
        turns = itertools.cycle(nodes)
        return list(await asyncio.gather(*(self.open(user, next(turns)) for user in users)))

    async def join(self, one: Peer, timeout_s: float = 30.0) -> None:
        """Until it works."""
        deadline_s = time.monotonic() + timeout_s
        while not (reply := await one.join(ROOM))["ok"]:
            assert time.monotonic() < deadline_s, reply
            await asyncio.sleep(0.05)

    async def close(self, *gone: Peer) -> None:
        for one in gone:
            del self.homes[one]
        await asyncio.gather(*(one.close() for one in gone))

    async def vanish(self, *gone: Peer) -> None:
        """Without a word: RST."""
        for one in gone:
            del self.homes[one]
            await one.abort()

    async def move(self, one: Peer, node: NodeServer) -> None:
        """The same session on another node."""
        self.homes[one] = node
        for reply in await one.resume(node.ws_url):
            assert reply["ok"] and reply["recovered"] is True, reply

    def lost(self, node: NodeServer) -> list[Peer]:
        """The node was killed: these have no connection any more."""
        gone = [one for one, home in self.homes.items() if home is node]
        for one in gone:
            del self.homes[one]
        return gone

    def users(self) -> set[str]:
        return {one.user for one in self.homes}

    # What is right.

    def open_connections(self, room: str | None) -> Counter[str]:
        return Counter(one.user for one in self.homes if room is None or room in one.views)

    def _hash(self, kind: str, name: str = "") -> dict[str, int]:
        found: dict[bytes, bytes] = self.redis.client.hgetall(self.keys.presence(0, kind, name))  # type: ignore[assignment]
        return {k.decode().strip('"'): int(v) for k, v in found.items() if k not in (b"e", b"v")}

    def stored(self, room: str | None) -> Counter[str]:
        """The connections of each user as Redis has them; 0 is a grace period."""
        scope = self._hash("all") if room is None else self._hash("room", room)
        return Counter(scope)

    def incarnations(self) -> set[str]:
        """The members whose word counts."""
        members = self.redis.client.zrange(self.keys.presence(0, "nodes"), 0, -1)
        return {member.decode() for member in members if isinstance(member, bytes)}

    def wrong(self) -> list[str]:
        """What in Redis is not as it should be when all is quiet; empty when it is."""
        client, key = self.redis.client, self.keys.presence
        problems = []
        for room in (None, ROOM):
            stored, right = self.stored(room), self.open_connections(room)
            if dict(stored) != dict(right):
                problems.append(f"{room or 'everywhere'}: {dict(stored)} instead of {dict(right)}")
        for kind in ("dead", "grace"):
            if left := client.zrange(key(0, kind), 0, -1):
                problems.append(f"{kind}: {left!r}")
        members = self.incarnations()
        if len(members) != len(self.running):
            problems.append(f"nodes: {members}")
        shares = {share.decode() for share in client.keys(key(0, "n", "*")) if isinstance(share, bytes)}
        if stray := shares - {key(0, "n", member) for member in members}:
            problems.append(f"shares of nobody: {stray}")
        return problems

    async def exact(self, timeout_s: float | None = None) -> float:
        """Return once Redis holds what is right and nothing else; the seconds that took."""
        start_s = time.monotonic()
        deadline_s = start_s + (self.servers.quiet_s + SLACK_S if timeout_s is None else timeout_s)
        while problems := self.wrong():
            assert time.monotonic() < deadline_s + busy_s(), f"after {time.monotonic() - start_s:.1f} s: {problems}"
            await asyncio.sleep(0.02)
        return time.monotonic() - start_s

    async def settled(self, timeout_s: float | None = None) -> tuple[Events, Events]:
        """Return once all is exact, in Redis and for the observer, and nothing is on its way; all events that the
        observer saw, of everywhere and of the room."""
        await self.exact(timeout_s)
        await asyncio.gather(*(node.wait_ready(10) for node in self.running))
        observer = self.observer
        # Behind everything that Redis has sent to the observer's node.
        mark = f"mark {next(self._numbers)}"
        speaker = next((one for one in self.homes if one is not observer and ROOM in one.views), observer)
        reply = await speaker.ask("message", room=ROOM, data=mark)
        assert reply["ok"], reply
        await observer.until(lambda: any(frame.get("data") == mark for frame in observer.frames))
        for room in (None, ROOM):
            right = set(self.open_connections(room))
            try:
                await observer.until(lambda room=room, right=right: observer.sees(room) == right, 5)  # type: ignore[misc]
            except AssertionError:
                seen = observer.sees(room)
                raise AssertionError(f"{room}: ghosts {seen - right}, missing {right - seen}") from None
            assert set(await observer.roster(room)) == right
        return observer.events(None), observer.events(ROOM)


def each(users: list[str] | set[str], status: str, count: int = 1) -> Events:
    """Exactly so many events of each user."""
    return Counter({(user, status): count for user in users})


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]
