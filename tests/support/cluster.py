"""Several real nodes on one real Redis, peers in their rooms and traffic between them, for tests that break something.

Times are scaled to a fifth (heartbeat, lease, grace). What a publish may take (1 s, then 2 s) is not a setting.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

from roomcast_client import Ack, Message, Position, Reset

from broker.redis.keys import CLUSTER_SHARDS, Keys
from tests.support.busy import busy_s
from tests.support.figures import note
from tests.support.node import NodeServer
from tests.support.oracle import Oracle
from tests.support.peer import Peer, View
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_sentinel import RedisSentinels
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually, patience

SCALED: dict[str, Any] = {"heartbeat_s": 0.4, "lease_s": 1.6, "grace_s": 1, "linger_s": 0.2, "drain_s": 1}
PRODUCTION: dict[str, Any] = {"heartbeat_s": 2, "lease_s": 8, "grace_s": 5, "linger_s": 1, "drain_s": 20}
UNLIMITED: dict[str, Any] = {
    "presence_broadcast": "none",  # not what these tests are about
    "requests_per_s": 1_000_000,
    "requests_burst": 1_000_000,
    "inbound_bytes_per_s": 2**30,
    "inbound_bytes_burst": 2**30,
    "outbound_bytes": 64 * 2**20,
}
UNAVAILABLE_S, TIMEOUT_S = 1.0, 2.0
SLACK_S = 0.5
"""For a busy machine."""


class Logged(NamedTuple):
    offset: int
    tag: str


class Cluster:
    """What members have seen is judged by what was acknowledged, or (where Redis loses data, or a test publishes by
    other ways than these) ``by_log``, by what Redis holds in the end."""

    def __init__(
        self,
        redis_server: RedisServer,
        nodes: list[NodeServer],
        heartbeat_s: float,
        beyond: RedisSentinels | RedisCluster | None = None,
    ) -> None:
        """``beyond``: the nodes use more than this one Redis."""
        self.redis = redis_server
        self.beyond = beyond
        self.nodes = nodes
        self.noticed_s = 2.5 * heartbeat_s + SLACK_S
        self.oracle = Oracle()
        self.peers: list[Peer] = []
        self.homes: dict[Peer, NodeServer] = {}
        self._numbers = itertools.count(1)

    async def peer(self, node: NodeServer, *rooms: str, url: str | None = None) -> Peer:
        """A new client on a node (by way of another URL if there is one), in these rooms."""
        one = Peer(f"u{next(self._numbers)}")
        self.peers.append(one)
        self.homes[one] = node
        await one.connect(url or node.ws_url)
        for room in rooms:
            reply = await one.join(room)
            assert reply["ok"], reply
        return one

    async def peers_everywhere(self, *rooms: str) -> list[Peer]:
        """One on each node."""
        return [await self.peer(node, *rooms) for node in self.nodes]

    def members(self, room: str) -> list[Peer]:
        return [one for one in self.peers if room in one.views and one.views[room].live]

    async def command(self, *arguments: Any) -> Any:
        """A Redis command that may take its time."""
        return await asyncio.to_thread(self.redis.command, *arguments)

    # Waiting.

    async def unready(self, node: NodeServer, reason: str = "", timeout_s: float | None = None) -> str:
        """Return why, once ``/readyz`` says 503 with a reason that has this in it."""

        async def why() -> str:
            status, body = await asyncio.to_thread(node.get, "/readyz")
            text = str(json.loads(body)["reason"])
            return text if status == 503 and reason in text else ""

        return await eventually(why, self.noticed_s if timeout_s is None else timeout_s)

    async def all_ready(self, timeout_s: float = 30.0) -> None:
        await asyncio.gather(*(node.wait_ready(timeout_s) for node in self.nodes))

    async def said(self, one: Peer, room: str, data: str | None = None, timeout_s: float = 30.0) -> Ack:
        """Publish until it is acknowledged, always with the same key."""
        number = next(self._numbers)
        data = data or f"said:{number}"
        deadline_s = time.monotonic() + timeout_s
        while True:
            reply = await one.ask("message", room=room, data=data, key=f"said-{number}")
            if reply["ok"]:
                ack = Ack(reply["epoch"], reply["offset"], reply["tag"])
                self.oracle.acked(room, data, ack)
                return ack
            assert reply["code"] in ("unavailable", "timeout") and time.monotonic() < deadline_s, reply
            await asyncio.sleep(0.02)

    async def everybody_got(self, room: str, ack: Ack, timeout_s: float = 30.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        for one in self.members(room):
            await one.until(partial(reached, one.views[room], ack), max(0.1, deadline_s - time.monotonic()))

    async def healed(self, row: str, room: str, since_s: float, timeout_s: float = 30.0) -> float:
        """Return once every node is ready, takes a publish, and every member of the room has got it; the seconds since
        ``since_s`` (``time.monotonic()`` when the cause was over) are noted as the row's."""
        for node in self.nodes:
            member = next(one for one in self.members(room) if self.homes[one] is node)
            await self.everybody_got(room, await self.said(member, room, timeout_s=timeout_s), timeout_s)
        await self.all_ready(timeout_s)
        seconds = time.monotonic() - since_s
        note(f"{row}: healed after", seconds, "s")
        return seconds

    # Judging.

    async def judge(self, *, by_log: bool, allowed: Sequence[str] = ()) -> None:
        """AssertionError if a peer saw what must not be, or a node crashed somewhere. ``allowed``: words of log lines
        that a test provokes on purpose."""
        for one in self.peers:
            one.check()
        for node in self.nodes:
            crashes = [r for r in node.crashes() if not any(word in str(r) for word in allowed)]
            assert not crashes, crashes[:3]
        if by_log:
            for room in {room for one in self.peers for room in one.views}:
                await self._compare_with_log(room)
            return
        for one in self.peers:
            for room, view in one.views.items():
                if view.live:
                    self.oracle.follow(one.user, room, view.start).seen = view.seen
        with contextlib.suppress(AssertionError):  # the check says it better
            await eventually(lambda: not self.oracle.behind(), 5)
        self.oracle.check()

    # The log as Redis holds it.

    def _holder(self, room: str) -> tuple[RedisServer, Keys]:
        """Who has the room's log now, and under which names."""
        if isinstance(self.beyond, RedisCluster):
            keys = Keys(shards=CLUSTER_SHARDS)
            return self.beyond.owner(keys.slot(keys.shard(room))), keys
        return self.redis if self.beyond is None else self.beyond.master, Keys()

    def log(self, room: str) -> list[Logged]:
        """The entries that are kept, oldest first."""
        server, keys = self._holder(room)
        entries: Any = server.client.xrange(keys.log(room))
        return [Logged(int(id.partition(b"-")[0]), fields[b"g"].decode()) for id, fields in entries]

    def top(self, room: str) -> Position:
        server, keys = self._holder(room)
        meta: Any = server.client.hgetall(keys.meta(room))
        return Position(meta[b"e"].decode(), int(meta[b"o"]), meta[b"g"].decode())

    async def _compare_with_log(self, room: str) -> None:
        """Since its last reset every member has seen just what the log holds now."""
        log, top = {entry.offset: entry.tag for entry in self.log(room)}, self.top(room)
        for one in self.members(room):
            view = one.views[room]
            await one.until(lambda view=view: view.position == top, 5)  # type: ignore[misc]
            since = max((i for i, event in enumerate(view.seen) if isinstance(event, Reset)), default=-1)
            start = view.seen[since].position if since >= 0 else view.start
            seen = {event.offset: event.tag for event in view.seen[since + 1 :] if isinstance(event, Message)}
            kept = {offset: tag for offset, tag in log.items() if offset > start.offset}
            assert seen.keys() >= kept.keys() and all(seen[offset] == tag for offset, tag in kept.items()), (
                f"{one.user} in {room} since {start}: {sorted(kept.items() - seen.items())[:5]} not seen"
            )


def reached(view: View, ack: Ack) -> bool:
    """Whether the view stands at the acknowledged message or after it."""
    return view.position.epoch == ack.epoch and view.position.offset >= ack.offset


@asynccontextmanager
async def cluster(
    nodes: int = 2,
    *,
    redis_server: RedisServer | None = None,
    broker: str | Sequence[str] | None = None,
    beyond: RedisSentinels | RedisCluster | None = None,
    settings: dict[str, Any] | None = None,
    by_log: bool = False,
    allowed: Sequence[str] = (),
    **redis_options: str,
) -> AsyncIterator[Cluster]:
    """Start Redis (unless one is given) and the nodes; stop and judge them. ``broker`` is the URL the nodes use, one
    for all or one each."""
    async with contextlib.AsyncExitStack() as stack:
        if beyond is not None:
            redis_server, broker = beyond.servers[0], broker or beyond.url
        server = redis_server or stack.enter_context(RedisServer(**redis_options))
        urls = [broker or server.url] * nodes if broker is None or isinstance(broker, str) else list(broker)
        chosen = SCALED | UNLIMITED | (settings or {})
        started = [NodeServer(broker=url, **chosen) for url in urls]
        for node in started:
            stack.push(node.__exit__)
            node.launch()
        world = Cluster(server, started, chosen["heartbeat_s"], beyond)
        await world.all_ready()
        try:
            yield world
            await world.judge(by_log=by_log, allowed=allowed)
        finally:
            await asyncio.gather(*(one.close() for one in world.peers))


class Traffic:
    """Publishes into one room, from one peer per node (all of them, or these), each message with a key and again until
    it is acknowledged."""

    def __init__(
        self, world: Cluster, room: str, every_s: float = 0.01, nodes: Sequence[NodeServer] | None = None
    ) -> None:
        self.world = world
        self.room = room
        self.every_s = every_s
        self.nodes = world.nodes if nodes is None else nodes
        self.acked = 0
        self.took: list[tuple[float, float]] = []
        """When a publish was acknowledged (``time.monotonic()``), and the seconds that its last try took."""
        self.refused: list[tuple[str, float]] = []
        """Error code of a try, and the seconds it took."""
        self._over = asyncio.Event()
        self._acked = asyncio.Condition()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Traffic]:
        """At the end all that was published is acknowledged and has reached every member."""
        publishers = [await self.world.peer(node, self.room) for node in self.nodes]
        tasks = [asyncio.create_task(self._publish(one)) for one in publishers]
        try:
            yield self
            self._over.set()
            await asyncio.wait_for(asyncio.gather(*tasks), 20)
        finally:
            self._over.set()  # a cancelled wait_for may go on (Python 3.11)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await self.world.everybody_got(self.room, await self.world.said(publishers[0], self.room))
        self.judge()

    def judge(self) -> None:
        """Refusals came in time. One that was sent after waiting may take both times together."""
        for code, seconds in self.refused:
            limit_s = UNAVAILABLE_S if code == "unavailable" else UNAVAILABLE_S + TIMEOUT_S
            assert seconds <= limit_s + SLACK_S + busy_s(), f"{code} after {seconds:.2f} s"

    @property
    def resets(self) -> list[int]:
        """How many each member was told."""
        return [one.views[self.room].resets for one in self.world.members(self.room)]

    def outage_s(self, since_s: float) -> float:
        """The longest time without an ack since then."""
        times = [since_s, *(at_s for at_s, _ in self.took if at_s > since_s), time.monotonic()]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    async def progress(self, messages: int = 20, timeout_s: float = 30.0) -> None:
        """Return when so many more were acknowledged."""
        target = self.acked + messages
        async with self._acked, patience(timeout_s):
            await self._acked.wait_for(lambda: self.acked >= target)

    async def _publish(self, one: Peer) -> None:
        for number in itertools.count():
            if self._over.is_set():
                return
            await self._until_acked(one, f"{one.user}:{number}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), self.every_s)

    async def _until_acked(self, one: Peer, data: str) -> None:
        while True:
            reply, seconds = await one.timed("message", room=self.room, data=data, key=data.replace(":", "-"))
            if reply["ok"]:
                self.world.oracle.acked(self.room, data, Ack(reply["epoch"], reply["offset"], reply["tag"]))
                self.took.append((time.monotonic(), seconds))
                async with self._acked:
                    self.acked += 1
                    self._acked.notify_all()
                return
            assert reply["code"] in ("unavailable", "timeout"), reply
            self.refused.append((reply["code"], seconds))
            await asyncio.sleep(0.05)
