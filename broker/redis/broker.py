"""The broker over Redis: one server, a master that sentinels watch, or a cluster. See :class:`broker.base.Broker` for
the promises. One server is the case of one shard on one master."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from typing import Protocol

from broker.base import MAX_OFFSET, Dedup, Entry, History, Mark, Page, Position, Sink, Status
from broker.options import BrokerOptions
from broker.redis.append_calls import META_TTL_S
from broker.redis.backlog import Backlog
from broker.redis.connection import Argument
from broker.redis.health import Health
from broker.redis.keys import CLUSTER_SHARDS, Keys
from broker.redis.master import Master
from broker.redis.place import Fixed, Place
from broker.redis.presence import presence_scripts
from broker.redis.scripts import load_script
from broker.redis.sentinel import Sentinels
from broker.redis.shard import Shard
from broker.redis.sharded_presence import ShardedPresence
from broker.redis.target import parse_target
from broker.redis.topology import Topology
from broker.stats import BrokerStats
from broker.supervise import supervise

SCRIPTS = ("append", "read", "tops", "marks", "forget_user", "announce", "nodes")
MAX_ROOMS_PER_CALL = 500
SCAN_COUNT = 200
"""Keys that Redis looks at in one step of a search, in which it serves nobody else."""
EMPTY_META_TTL_MS = 3600 * 1000


class _World(Protocol):
    """All that is linked: one master, or the topology of a cluster."""

    async def run(self) -> None: ...
    async def ended(self) -> None: ...


class RedisBroker:
    """Puts the parts together: shards, the masters that serve them, and what keeps those linked."""

    def __init__(self, url: str, *, node_id: str, options: BrokerOptions | None = None) -> None:
        self.node_id = node_id
        self.options = options = options or BrokerOptions()
        self.stats = BrokerStats()
        self._target = parse_target(url)
        self._clustered = self._target.kind == "cluster"
        self.keys = keys = Keys(options.prefix, CLUSTER_SHARDS if self._clustered else 1)
        self._script = {name: load_script(name, sharded=self._clustered) for name in SCRIPTS}
        presence = presence_scripts(sharded=self._clustered)
        self._scripts = [*self._script.values(), *presence.values()]
        self._health = Health(keys.shards, self.stats)
        backlog = Backlog()
        self._shards = [
            Shard(
                number,
                keys,
                backlog,
                node_id=node_id,
                health=self._health,
                scripts=presence,
                options=options,
                stats=self.stats,
                on_moved=self._moved,
            )
            for number in range(keys.shards)
        ]
        self.presence = ShardedPresence(keys, self._shards)
        self._world: _World | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    # Life

    async def start(self, sink: Sink) -> None:
        self._health.sink = sink
        self._world = self._linked(sink)
        self._task = asyncio.create_task(
            supervise("the link to Redis", self._world.run, self.stats), name="broker link"
        )

    def _linked(self, sink: Sink) -> _World:
        target, options, name = self._target, self.options, f"{self.options.prefix}:{self.node_id}"

        def make_master(place: Place) -> Master:
            return Master(
                place,
                name,
                self.keys,
                sink,
                clustered=self._clustered,
                health=self._health,
                scripts=self._scripts,
                options=options,
                stats=self.stats,
                on_moved=self._moved,
            )

        if self._clustered:
            slots = [self.keys.slot(shard.number) for shard in self._shards]
            return Topology(
                target.seeds,
                self._shards,
                slots,
                name=name,
                make_master=make_master,
                health=self._health,
                options=options,
                stats=self.stats,
            )
        place: Place = Fixed(target.server)
        if target.kind == "sentinel":
            place = Sentinels(target.seeds, target.master, target.server, options, name)
        master = make_master(place)
        master.take(self._shards[0])
        return master

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.gather(*(shard.close() for shard in self._shards))
        if self._task is not None and self._world is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            await self._world.ended()
        self._health.close()

    @property
    def ready(self) -> bool:
        return self._health.ready.is_set()

    @property
    def reason(self) -> str:
        return self._health.reason

    async def wait_ready(self) -> None:
        await self._health.ready.wait()

    def _moved(self, why: str) -> None:
        if isinstance(self._world, Topology):
            self._world.look_soon(why)

    # Channels

    def subscribe(self, channel: str) -> asyncio.Future[None]:
        calls = [self._shards[shard].wanted.subscribe(channel) for shard, _ in self.keys.topics(channel)]
        return calls[0] if len(calls) == 1 else asyncio.ensure_future(self._all_or_nothing(channel, calls))

    async def _all_or_nothing(self, channel: str, calls: Sequence[asyncio.Future[None]]) -> None:
        results = await asyncio.gather(*calls, return_exceptions=True)
        errors = [result for result in results if result is not None]
        if errors:
            self.unsubscribe(channel)
            raise errors[0]

    def unsubscribe(self, channel: str) -> asyncio.Future[None]:
        calls = [self._shards[shard].wanted.unsubscribe(channel) for shard, _ in self.keys.topics(channel)]
        return calls[0] if len(calls) == 1 else asyncio.ensure_future(_all(calls))

    # Messages

    def append(
        self, room: str, payload: bytes, *, history: History, dedup: Dedup | None = None, author: str | None = None
    ) -> asyncio.Future[Position]:
        return self._shards[self.keys.shard(room)].publisher.append(room, payload, history, dedup, author)

    def publish(self, channel: str, payload: bytes) -> asyncio.Future[None]:
        return self._shards[self.keys.home(channel)].publisher.publish(channel, payload)

    def advance(self, room: str, user: str, status: Status, offset: int, payload: bytes) -> asyncio.Future[bool]:
        return self._of(room).publisher.advance(room, user, status, offset, payload)

    async def marks(self, room: str) -> list[Mark]:
        keys = [self.keys.meta(room), self.keys.marks(room)]
        flat = await self._of(room).ask(self._script["marks"], keys, [round(self.options.marks_ttl_s)])
        return [Mark(flat[i].decode(), int(flat[i + 1]), int(flat[i + 2])) for i in range(0, len(flat), 3)]

    async def read(self, room: str, since: int | None, limit: int) -> Page:
        if limit < 0 or (since is not None and not 0 <= since <= MAX_OFFSET):
            raise ValueError(f"read needs 0 <= since <= 2**53 - 1 and limit >= 0, not {since}, {limit}")
        keys = [self.keys.meta(room), self.keys.log(room)]
        epoch, offset, tag, flat = await self._of(room).ask(
            self._script["read"],
            keys,
            [secrets.token_hex(8), "" if since is None else since, limit, EMPTY_META_TTL_MS],
        )
        entries = [Entry(epoch, int(flat[i]), flat[i + 2], flat[i + 3], flat[i + 1]) for i in range(0, len(flat), 4)]
        return Page(Position(epoch, int(offset), tag), entries)

    async def tops(self, rooms: Sequence[str]) -> list[Position | None]:
        by_shard: dict[int, list[int]] = {}
        for index, room in enumerate(rooms):
            by_shard.setdefault(self.keys.shard(room), []).append(index)
        tops: list[Position | None] = [None] * len(rooms)

        async def ask(shard: int, part: list[int]) -> None:
            keys = [self.keys.meta(rooms[index]) for index in part]
            ttls = [EMPTY_META_TTL_MS, round(META_TTL_S * 1000)]
            for index, top in zip(part, await self._shards[shard].ask(self._script["tops"], keys, ttls), strict=True):
                if top:
                    tops[index] = Position(top[0], int(top[1]), top[2])

        step = MAX_ROOMS_PER_CALL
        await asyncio.gather(
            *(
                ask(shard, indices[start : start + step])
                for shard, indices in by_shard.items()
                for start in range(0, len(indices), step)
            )
        )
        return tops

    async def clear(self, room: str) -> None:
        await self._of(room).call("DEL", self.keys.log(room))

    async def forget_user(self, user: str) -> int:
        """On a cluster one master after the other is searched, each through one of its shards."""
        of_master = {id(shard.master): shard for shard in self._shards}
        return sum([await self._forget_user(user, shard) for shard in of_master.values()])

    async def _forget_user(self, user: str, shard: Shard) -> int:
        found = 0
        cursor = b""
        while cursor != b"0":
            cursor, names = await shard.call(
                "SCAN", cursor or b"0", "MATCH", self.keys.all_marks(), "COUNT", SCAN_COUNT
            )
            by_shard: dict[int, list[bytes]] = {}
            for name in names:
                number = self.keys.marks_shard(name)
                if number is not None:
                    by_shard.setdefault(number, []).append(name)
            for number, marks in by_shard.items():
                found += await self._shards[number].ask(self._script["forget_user"], marks, [user])
        return found

    # Nodes

    async def announce(self, description: dict[str, object], ttl_s: float) -> None:
        text = json.dumps(description, separators=(",", ":"))
        arguments: list[Argument] = [self.node_id, round(ttl_s * 1000), text]
        await self._shards[0].ask(self._script["announce"], [self.keys.nodes()], arguments)

    async def nodes(self) -> list[dict[str, object]]:
        return [json.loads(text) for text in await self._shards[0].ask(self._script["nodes"], [self.keys.nodes()], [])]

    def _of(self, room: str) -> Shard:
        return self._shards[self.keys.shard(room)]


async def _all(calls: Sequence[asyncio.Future[None]]) -> None:
    await asyncio.gather(*calls)
