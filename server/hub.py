"""A node's table of connections and rooms, and the fan-out. Knows connections; knows no Redis.

The way of a message: a connection tells ``received`` → server/requests.py asks the broker to append or publish → every
node that has a member hears it in ``deliver`` → each connection gets what the tick brought in one write. ``deliver``
contains no ``await``: it needs no lock, and one slow connection cannot delay another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from collections.abc import Set as AbstractSet

from broker.base import Broker, Change, Delivery, Item, Signal
from server import events
from server.cluster import Cluster
from server.connection import CONGESTED, Connection, Listener
from server.expiry import Expiry
from server.feed import Feed
from server.frames import Batch, Prepared
from server.gate import Gate
from server.identity import Identity
from server.interest import Interest
from server.metrics import Metrics
from server.outbox import Gathered, Outbox
from server.pacing import raw_rates, read_on_later
from server.payload import (
    CONTROL,
)
from server.presence import Presence
from server.receipts import Receipts
from server.reception import Reception
from server.registry import Registry
from server.requests import Requests
from server.revocation import CHANNEL as REVOKED_CHANNEL
from server.revocation import Revocations
from server.roll import Roll
from server.rooms import Rooms
from server.settings import Settings
from server.tasks import Tasks
from server.upkeep import Upkeep

logger = logging.getLogger("server.hub")


class LocalHub(Roll, Listener):
    def __init__(self, settings: Settings, broker: Broker, metrics: Metrics) -> None:
        super().__init__(broker.node_id)
        self.settings = settings
        self.broker = broker
        self.metrics = metrics
        metrics.watch_broker(broker.stats, lambda: broker.ready)
        metrics.watch("roomcast_outbound_pending_bytes", "Accepted for clients, not yet taken.", self._outbound_bytes)
        metrics.watch("roomcast_slow_connections", "Clients for which bytes wait.", self._slow_connections)
        metrics.watch("roomcast_tasks", "Tasks of the event loop.", lambda: len(asyncio.all_tasks()))
        metrics.watch("roomcast_channels", "Channels of the broker in use here.", lambda: len(self.interest))
        self.counts = metrics.counts
        self.tasks = Tasks(self._crashed)
        self.failure: str | None = None
        """Why this node cannot go on (a background task crashed); None while all is well."""
        self.degraded_since: float | None = None
        self.draining = False
        """This node is leaving: it is not ready, and its clients are sent away."""
        self.gate: Gate | None = None
        """The application's say in what clients may do, where there is one."""
        self.renew: Callable[[str, str], Awaitable[Identity]] | None = None
        """Who a fresh token names, and by whom it is brought (for the limit on bad ones); raises
        :class:`server.refusal.Refusal`. None: tokens cannot be replaced here."""
        self.on_lost: Callable[[Connection], object] | None = None
        """Told of every connection that has gone."""
        self.expiry = Expiry(settings.leeway_s)
        self.cluster = Cluster(self)
        self.revocations = Revocations(broker, self.tasks, self.cluster.revoked)
        self.interest = Interest(broker, settings.linger_s, self._channel_dropped)
        members: Registry[str, Connection] = Registry()
        self.receipts = Receipts(broker, self.tasks)
        self.feed = Feed(broker, self.tasks, self.counts, members, self.sessions, self.receipts, self._send_to_room)
        self.presence = Presence(broker, self.tasks, self.everybody, self.send)
        self.rooms = Rooms(self.interest, self.feed, members, self.presence, self.receipts, settings, self.counts)
        self.requests = Requests(self)
        self.raw_rates = raw_rates(settings)
        self._reception = Reception(self)
        self._upkeep = Upkeep(self)

    # Connections come and go.

    def attach(
        self, connection: Connection, path: str, user: str | None, session: str | None
    ) -> Collection[asyncio.Future[None]]:
        """Make a connection part of the node (:meth:`server.reception.Reception.attach`)."""
        return self._reception.attach(connection, path, user, session)

    def lost(self, connection: Connection, code: int) -> None:
        self.counts.connections -= 1
        self.counts.connections_plain -= connection.lane == "plain"
        self.counts.closed(code)
        rooms = self.rooms.of(connection) if self.gate is not None else ()
        self.rooms.drop(connection)
        self.strike(connection)
        self._reception.forget(connection)
        self.expiry.forget(connection)
        self.interest.release(f"path:{connection.path}")
        if connection.user is not None:
            self.interest.release(f"user:{connection.user}")
            if connection.present:
                self.presence.went(connection.user, None)
        if self.settings.presence_broadcast == "all":
            self.interest.release("presence")
        connection.acks = None
        for room in rooms:
            self.left(connection, room)
        if connection.handler is not None:
            connection.handler.lost(code)
        if self.on_lost is not None:
            self.on_lost(connection)

    def left(self, connection: Connection, room: str) -> None:
        """Tell the application, if it has a say, that a connection is no member any more."""
        if self.gate is not None:
            self.gate.left(connection, room)

    def dropped(self, connection: Connection, kind: str, events: int) -> None:
        self.counts.dropped("slow_reader", events, kind)

    def cut(self, connection: Connection, why: str) -> None:
        self.counts.slow_closes[why] += 1

    def caught_up(self, connection: Connection, rooms: Collection[str | None]) -> None:
        for room in rooms:
            told = self.presence.told(room, connection)
            if told is not None:
                connection.send_event(told)

    def received(self, connection: Connection, data: bytes, text: bool) -> None:
        self.counts.messages_in += 1
        self.counts.bytes_in += len(data)
        if connection.raw:
            connection.to_application(data, text)
            read_on_later(connection, len(data), self.raw_rates)
            return
        self.requests.received(connection, data, text)

    # Fan-out.

    def deliver(self, deliveries: list[Delivery]) -> None:
        started = time.perf_counter()
        channels: dict[str, list[Item]] = {}
        for channel, item in deliveries:
            items = channels.get(channel)
            if items is None:
                channels[channel] = [item]
            else:
                items.append(item)
        if len(channels) == 1:
            for channel, items in channels.items():
                self._deliver_channel(channel, items, None)
        else:
            # Several rooms may have the same members: gather first, so that each connection is written to once.
            gathered = Gathered()
            for channel, items in channels.items():
                self._deliver_channel(channel, items, gathered)
            for connection, batch in gathered.batches():
                if connection in self.indirect:
                    connection.send(batch)
                else:
                    connection.transport.write(batch.frames)
        self.metrics.fanout_seconds.observe(time.perf_counter() - started)

    def _deliver_channel(self, channel: str, items: list[Item], gathered: Gathered | None) -> None:
        kind, _, name = channel.partition(":")
        if channel == REVOKED_CHANNEL:
            self.revocations.heard(items)
            return
        if kind == "room":
            members = self.rooms.members(name)
            outbox = self.feed.outbox(name, items)
            changes = [item for item in items if isinstance(item, Change)]
            if changes:
                self.send(self.presence.changed(name, changes), self.presence.watchers(name), gathered)
        elif kind == "presence":
            members = self.everybody()
            outbox = self.presence.changed(None, [item for item in items if isinstance(item, Change)])
        else:
            outbox = Outbox()
            members = self.at(name) if kind == "path" else self.users.members(name)
            for item in items:
                if isinstance(item, Signal):
                    self.cluster.heard(channel, item, outbox)
        self.send(outbox, members, gathered)

    def send(self, outbox: Outbox, members: AbstractSet[Connection], gathered: Gathered | None = None) -> None:
        """Give what is in the outbox to the members, now or (``gathered``) together with what else the tick brings."""
        if not outbox or not members:
            return
        if self._reception.waiting:
            members = members - self._reception.waiting
        batch = outbox.shared()
        own = outbox.own()
        self.counts.deliveries += len(outbox) * len(members)
        self.counts.bytes_out += len(batch.frames) * len(members)
        if gathered is not None:
            gathered.add(batch, own, members)
            return
        # A call of our own for each member would be a third of what Python does in a fan-out.
        others = members & self.indirect
        if own:
            others |= members & own.keys()
        frames = batch.frames
        for connection in members - others if others else members:
            connection.transport.write(frames)
        for connection in others:
            if connection not in own:
                connection.send(batch)
            elif own[connection]:
                connection.send(Batch(own[connection]))

    def _send_to_room(self, name: str, outbox: Outbox) -> None:
        self.send(outbox, self.rooms.members(name))

    # The broker's health (broker.base.Sink).

    def interrupted(self, reason: str) -> None:
        logger.warning("degraded: %s", reason)
        self.degraded_since = time.time()
        self._tell_everybody(events.degraded(self.degraded_since))

    def resubscribed(self, channels: Sequence[str]) -> None:
        rooms = [channel.removeprefix("room:") for channel in channels if channel.startswith("room:")]
        self.feed.verify(rooms)
        self.presence.verify([None, *rooms] if "presence" in channels else rooms)
        if REVOKED_CHANNEL in channels:
            self.revocations.load()

    def restored(self) -> None:
        logger.info("restored")
        self.degraded_since = None
        self.interest.retry()
        self.feed.retry()
        self.presence.retry()
        self._reception.follow_everybody()
        self.revocations.load()
        self._tell_everybody(events.restored())

    def _outbound_bytes(self) -> float:
        return float(sum(connection.outbound_bytes() for connection in self.everyone()))

    def _slow_connections(self) -> float:
        return float(sum(connection.held & CONGESTED != 0 for connection in self.everyone()))

    def _tell_everybody(self, payload: bytes) -> None:
        batch = Batch([Prepared(payload)])
        for connection in self.everyone():
            if not connection.raw and connection not in self._reception.waiting:
                connection.send(batch)

    # Life.

    @property
    def ready(self) -> bool:
        return self.broker.ready and self.failure is None and not self.draining

    @property
    def reason(self) -> str:
        """Why the node is not ready; empty when it is."""
        return self.failure or ("draining" if self.draining else self.broker.reason)

    async def start(self) -> None:
        await self.broker.start(self)
        self.interest.acquire(CONTROL)
        self._upkeep.start()

    def leaving(self) -> None:
        """This node begins to send its clients away; the others are told."""
        self.draining = True
        self._upkeep.tell_now()

    async def close(self) -> None:
        self.expiry.close()
        await self.tasks.close()
        await self._upkeep.farewell()
        await self.broker.close()

    def _crashed(self, name: str, error: BaseException | None) -> None:
        self.failure = f"the background task {name!r} crashed: {error!r}. Restart this node and report it."

    def _channel_dropped(self, channel: str) -> None:
        if channel == "presence":
            self.presence.unfollow(None)
        elif channel.startswith("room:"):
            self.feed.forget(channel.removeprefix("room:"))
