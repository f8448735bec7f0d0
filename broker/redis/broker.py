"""The broker over one Redis server. See :class:`broker.base.Broker` for the promises."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence

from broker.base import (
    MAX_OFFSET,
    Dedup,
    Entry,
    History,
    Mark,
    OutcomeUnknown,
    Page,
    Position,
    Sink,
    Status,
    Unavailable,
)
from broker.options import BrokerOptions
from broker.redis.address import parse_address
from broker.redis.commands import Commands
from broker.redis.connection import Argument, Reply
from broker.redis.keys import Keys
from broker.redis.link import Link
from broker.redis.presence import RedisPresenceStore, presence_scripts
from broker.redis.publisher import META_TTL_S, Publisher
from broker.redis.scripts import Script, load_script
from broker.redis.subscriber import Subscriber
from broker.reporter import PresenceReporter
from broker.stats import BrokerStats
from broker.supervise import supervise

MAX_ROOMS_PER_CALL = 500
SCAN_COUNT = 200
"""Keys that Redis looks at in one step of a search, in which it serves nobody else."""
EMPTY_META_TTL_MS = 3600 * 1000


class RedisBroker:
    """Puts the parts together: commands, publisher, subscriber, and the link that keeps them connected."""

    def __init__(self, url: str, *, node_id: str, options: BrokerOptions | None = None) -> None:
        self.node_id = node_id
        self.options = options = options or BrokerOptions()
        self.stats = BrokerStats()
        self.keys = Keys(options.prefix)
        self.commands = Commands(options, self.stats, self._demoted)
        self._publisher = Publisher(self.keys, options, self.stats, self._demoted)
        self._subscriber = Subscriber(self.keys, node_id, options, self.stats)
        self._read, self._tops, self._marks = load_script("read"), load_script("tops"), load_script("marks")
        self._forget_user = load_script("forget_user")
        self._announce, self._nodes = load_script("announce"), load_script("nodes")
        presence = presence_scripts()
        store = RedisPresenceStore(
            self.commands.run,
            self.keys,
            node_id=node_id,
            lease_s=options.lease_s,
            grace_s=options.grace_s,
            scripts=presence,
        )
        self.presence = PresenceReporter(
            store, node_id=node_id, options=options, rejoined=self._subscriber.doubt_everything
        )
        self.stats.presence_waits.append(self.presence.waiting_s)
        self._link = Link(
            parse_address(url),
            f"{options.prefix}:{node_id}",
            commands=self.commands,
            publisher=self._publisher,
            subscriber=self._subscriber,
            scripts=[
                *(
                    load_script("append"),
                    self._read,
                    self._tops,
                    self._marks,
                    self._forget_user,
                    self._announce,
                    self._nodes,
                ),
                *presence.values(),
            ],
            heartbeat=self.presence.heartbeat,
            options=options,
            stats=self.stats,
        )
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    # Life

    async def start(self, sink: Sink) -> None:
        self._subscriber.sink = sink
        self._task = asyncio.create_task(
            supervise("the link to Redis", lambda: self._link.run(sink), self.stats), name="broker link"
        )

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self.presence.close()
        self._publisher.close()
        self._subscriber.close()
        await self._publisher.idle()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            await self._link.ended()
        self._link.reason = "closed"
        self._link.ready.clear()

    @property
    def ready(self) -> bool:
        return self._link.ready.is_set()

    @property
    def reason(self) -> str:
        return self._link.reason

    async def wait_ready(self) -> None:
        await self._link.ready.wait()

    def _demoted(self, why: str) -> None:
        self._link.drop(why)

    # Channels

    async def subscribe(self, channel: str) -> None:
        await self._subscriber.subscribe(channel)

    async def unsubscribe(self, channel: str) -> None:
        await self._subscriber.unsubscribe(channel)

    # Messages

    def append(
        self, room: str, payload: bytes, *, history: History, dedup: Dedup | None = None
    ) -> asyncio.Future[Position]:
        return self._publisher.append(room, payload, history, dedup)

    def publish(self, channel: str, payload: bytes) -> asyncio.Future[None]:
        return self._publisher.publish(channel, payload)

    def advance(self, room: str, user: str, status: Status, offset: int, payload: bytes) -> asyncio.Future[bool]:
        return self._publisher.advance(room, user, status, offset, payload)

    async def marks(self, room: str) -> list[Mark]:
        keys = [self.keys.meta(room), self.keys.marks(room)]
        flat = await self._ask(self._marks, keys, [round(self.options.marks_ttl_s)])
        return [Mark(flat[i].decode(), int(flat[i + 1]), int(flat[i + 2])) for i in range(0, len(flat), 3)]

    async def read(self, room: str, since: int | None, limit: int) -> Page:
        if limit < 0 or (since is not None and not 0 <= since <= MAX_OFFSET):
            raise ValueError(f"read needs 0 <= since <= 2**53 - 1 and limit >= 0, not {since}, {limit}")
        keys = [self.keys.meta(room), self.keys.log(room)]
        epoch, offset, tag, flat = await self._ask(
            self._read, keys, [secrets.token_hex(8), "" if since is None else since, limit, EMPTY_META_TTL_MS]
        )
        entries = [Entry(epoch, int(flat[i]), flat[i + 2], flat[i + 3], flat[i + 1]) for i in range(0, len(flat), 4)]
        return Page(Position(epoch, int(offset), tag), entries)

    async def tops(self, rooms: Sequence[str]) -> list[Position | None]:
        parts = [rooms[start : start + MAX_ROOMS_PER_CALL] for start in range(0, len(rooms), MAX_ROOMS_PER_CALL)]
        ttls = [EMPTY_META_TTL_MS, round(META_TTL_S * 1000)]
        replies = await asyncio.gather(
            *(self._ask(self._tops, [self.keys.meta(room) for room in part], ttls) for part in parts)
        )
        return [Position(top[0], int(top[1]), top[2]) if top else None for reply in replies for top in reply]

    async def clear(self, room: str) -> None:
        await self._call("DEL", self.keys.log(room))

    async def forget_user(self, user: str) -> int:
        found = 0
        for pattern in self.keys.all_marks():
            cursor = b""
            while cursor != b"0":
                cursor, keys = await self._call("SCAN", cursor or b"0", "MATCH", pattern, "COUNT", SCAN_COUNT)
                if keys:
                    found += await self._ask(self._forget_user, keys, [user])
        return found

    async def _call(self, *arguments: Argument) -> Reply:
        """A command that may as well run twice."""
        if self._closed:
            raise Unavailable("the broker is closed: this node is leaving")
        try:
            return await self.commands.call(*arguments)
        except OutcomeUnknown as error:
            raise Unavailable(str(error)) from error

    # Nodes

    async def announce(self, description: dict[str, object], ttl_s: float) -> None:
        text = json.dumps(description, separators=(",", ":"))
        await self._ask(self._announce, [self.keys.nodes()], [self.node_id, round(ttl_s * 1000), text])

    async def nodes(self) -> list[dict[str, object]]:
        return [json.loads(text) for text in await self._ask(self._nodes, [self.keys.nodes()], [])]

    async def _ask(self, script: Script, keys: Sequence[Argument], arguments: Sequence[Argument]) -> Reply:
        """Run a script that may as well run twice: an unknown outcome is none."""
        if self._closed:
            raise Unavailable("the broker is closed: this node is leaving")
        try:
            return await self.commands.run(script, keys, arguments)
        except OutcomeUnknown as error:
            raise Unavailable(str(error)) from error
