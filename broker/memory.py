"""The embedded broker: nodes in one process share a bus. Same promises as Redis, for one process and for tests."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Sequence

from broker.base import (
    MAX_OFFSET,
    Change,
    Dedup,
    Delivery,
    Entry,
    History,
    Item,
    Mark,
    Page,
    Position,
    Signal,
    Sink,
    Status,
    Unavailable,
)
from broker.memory_bus import MemoryBus
from broker.memory_presence import MemoryPresenceStore
from broker.options import BrokerOptions
from broker.reporter import PresenceReporter
from broker.stats import BrokerStats
from broker.supervise import supervise

TICK_BYTES = 128 * 1024
"""At most about so much is delivered in one tick, as from a socket."""


class MemoryBroker:
    """One node on a :class:`MemoryBus`. See :class:`broker.base.Broker` for the promises."""

    def __init__(self, *, node_id: str, bus: MemoryBus | None = None, options: BrokerOptions | None = None) -> None:
        self.node_id = node_id
        self.bus = bus or MemoryBus()
        self.options = options or BrokerOptions()
        self.stats = BrokerStats()
        self._sink: Sink | None = None
        self._channels: set[str] = set()
        self._pending: list[Delivery] = []
        self._flush_scheduled = False
        self._reason = "not started"
        self._ready = asyncio.Event()
        store = MemoryPresenceStore(
            self.bus.presence, self._check, lease_s=self.options.lease_s, grace_s=self.options.grace_s
        )
        self.presence = PresenceReporter(store, node_id=node_id, options=self.options, rejoined=self._doubt_everything)
        self.stats.presence_waits.append(self.presence.waiting_s)
        self._task: asyncio.Task[None] | None = None

    # Life

    async def start(self, sink: Sink) -> None:
        self._sink = sink
        self._reason = ""
        self._ready.set()
        self._task = asyncio.create_task(supervise("the heartbeat", self._beat, self.stats), name="broker heartbeat")

    async def close(self) -> None:
        await self.presence.close()
        self.disappear()
        if self._task is not None:
            await asyncio.wait((self._task,))

    def disappear(self) -> None:
        """Gone without a word. Idempotent."""
        for channel in self._channels:
            self.bus.unsubscribe(self, channel)
        self._channels.clear()
        self._pending.clear()
        self._reason = "closed"
        self._ready.clear()
        if self._task is not None:
            self._task.cancel()

    async def _beat(self) -> None:
        """Heartbeats, a little sooner than promised and not all nodes together; at once when an outage is over."""
        while True:
            await self._ready.wait()
            try:
                await self.presence.heartbeat(_random())
            except Unavailable:
                continue  # cut off in the meantime
            await asyncio.sleep(self.options.heartbeat_s * random.uniform(0.9, 1))

    @property
    def ready(self) -> bool:
        return not self._reason

    @property
    def reason(self) -> str:
        return self._reason

    async def wait_ready(self) -> None:
        await self._ready.wait()

    def interrupt(self, reason: str) -> None:
        if self._reason or self._sink is None:
            return
        self._reason = reason
        self._ready.clear()
        self._pending.clear()
        for channel in self._channels:
            self.bus.unsubscribe(self, channel)
        self.stats.interruptions += 1
        self._sink.interrupted(reason)

    def restore(self) -> None:
        if self._reason in ("", "closed", "not started") or self._sink is None:
            return
        for channel in self._channels:
            self.bus.subscribe(self, channel)
        self._reason = ""
        self._ready.set()
        self.stats.reconnects += 1
        self._sink.resubscribed(list(self._channels))
        self._sink.restored()

    def _doubt_everything(self) -> None:
        if self._sink is not None and self._channels:
            self._sink.resubscribed(list(self._channels))

    def _check(self) -> None:
        if self._reason:
            raise Unavailable(f"the broker is unavailable ({self._reason}): retry later")

    # Channels

    def subscribe(self, channel: str) -> asyncio.Future[None]:
        if self._reason not in ("", "closed", "not started"):
            return asyncio.ensure_future(self._subscribe_when_back(channel))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._refused(future):
            self._subscribe(channel)
            future.set_result(None)
        return future

    async def _subscribe_when_back(self, channel: str) -> None:
        try:
            await asyncio.wait_for(self._ready.wait(), self.options.unavailable_after_s)
        except TimeoutError:
            pass
        self._check()
        self._subscribe(channel)

    def _subscribe(self, channel: str) -> None:
        self._channels.add(channel)
        self.bus.subscribe(self, channel)

    def unsubscribe(self, channel: str) -> asyncio.Future[None]:
        self._channels.discard(channel)
        self.bus.unsubscribe(self, channel)
        if self._pending:
            self._pending = [delivery for delivery in self._pending if delivery[0] != channel]
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    def receive(self, channel: str, item: Item) -> None:
        """From the bus: delivered with all else of this tick, in the next one."""
        self._pending.append((channel, item))
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        size = count = 0
        for _, item in self._pending:
            size += len(item.user) if isinstance(item, Change) else len(item.payload)
            count += 1
            if size >= TICK_BYTES:
                break
        batch, self._pending = self._pending[:count], self._pending[count:]
        self._flush_scheduled = bool(self._pending)
        if self._flush_scheduled:
            asyncio.get_running_loop().call_soon(self._flush)
        if batch and self._sink is not None:
            self.stats.deliveries += len(batch)
            self.stats.bytes_in += size
            self._sink.deliver(batch)

    # Messages

    def append(
        self, room: str, payload: bytes, *, history: History, dedup: Dedup | None = None, author: str | None = None
    ) -> asyncio.Future[Position]:
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        if self._refused(future):
            return future
        now_s = self.bus.clock()
        position, entry = self.bus.logs.append(
            room,
            payload,
            tag=_random(),
            epoch=_random(),
            history=history,
            dedup=dedup,
            dedup_ttl_s=self.options.dedup_ttl_s,
            now_s=now_s,
        )
        if entry is not None:
            if author is not None:
                log = self.bus.logs.open(room, entry.epoch, now_s)
                log.advance(author, "read", entry.offset, self.options.max_marks_per_room, now_s)
            self._publish(f"room:{room}", entry, payload)
        future.set_result(position)
        return future

    def publish(self, channel: str, payload: bytes) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._refused(future):
            return future
        self._publish(channel, Signal(payload), payload)
        future.set_result(None)
        return future

    def advance(self, room: str, user: str, status: Status, offset: int, payload: bytes) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._refused(future):
            return future
        now_s = self.bus.clock()
        log = self.bus.logs.find(room, now_s)
        moved = log is not None and log.advance(user, status, offset, self.options.max_marks_per_room, now_s)
        if moved and payload:
            self._publish(f"room:{room}", Signal(payload), payload)
        future.set_result(moved)
        return future

    async def marks(self, room: str) -> list[Mark]:
        self._check()
        now_s = self.bus.clock()
        log = self.bus.logs.find(room, now_s)
        marks = log.marks.values() if log is not None else ()
        return [mark for mark, moved_s in marks if now_s - moved_s <= self.options.marks_ttl_s]

    def _publish(self, channel: str, item: Entry | Signal, payload: bytes) -> None:
        self.stats.publishes += 1
        self.stats.bytes_out += len(payload)
        self.bus.publish(channel, item)

    def _refused(self, future: asyncio.Future[Position] | asyncio.Future[None] | asyncio.Future[bool]) -> bool:
        if not self._reason:
            return False
        self.stats.unavailable += 1
        future.set_exception(Unavailable(f"the broker is unavailable ({self._reason}): retry later"))
        future.exception()  # looked at: the future may be ignored
        return True

    async def read(self, room: str, since: int | None, limit: int) -> Page:
        if limit < 0 or (since is not None and not 0 <= since <= MAX_OFFSET):
            raise ValueError(f"read needs 0 <= since <= 2**53 - 1 and limit >= 0, not {since}, {limit}")
        self._check()
        now_s = self.bus.clock()
        return self.bus.logs.open(room, _random(), now_s).read(since, limit, now_s)

    async def tops(self, rooms: Sequence[str]) -> list[Position | None]:
        self._check()
        now_s = self.bus.clock()
        logs = [self.bus.logs.find(room, now_s) for room in rooms]
        return [None if log is None else log.top for log in logs]

    async def clear(self, room: str) -> None:
        self._check()
        log = self.bus.logs.find(room, self.bus.clock())
        if log is not None:
            log.forget_entries()

    async def forget_user(self, user: str) -> int:
        self._check()
        return self.bus.logs.forget_user(user)

    # Nodes

    async def announce(self, description: dict[str, object], ttl_s: float) -> None:
        self._check()
        self.bus.nodes[self.node_id] = (dict(description), self.bus.clock() + ttl_s)

    async def nodes(self) -> list[dict[str, object]]:
        self._check()
        now_s = self.bus.clock()
        self.bus.nodes = {name: entry for name, entry in self.bus.nodes.items() if now_s < entry[1]}
        return [dict(description) for description, _ in self.bus.nodes.values()]


def _random() -> bytes:
    """A tag or an epoch: 64 random bits in hex."""
    return secrets.token_hex(8).encode()
