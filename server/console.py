"""What the commands beside ``serve`` do: one short-lived look through the broker, beside the nodes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence

import orjson

from broker import broker_from_url
from broker.base import Broker, Change, Delivery, Entry, Position, Sink, Unavailable
from broker.follower import Difference, Follower
from server import events, jsontext, protocol
from server.payload import decode_message, encode_message
from server.redact import redact
from server.settings import Settings, SettingsError
from server.sync import Deliver, Effect, Read, RoomLog

CONNECT_S = 3.0
PAGE_ENTRIES = 100

Show = Callable[[dict[str, object]], None]
"""Takes one message: room, offset, tag, user_id, ts, data."""


class Silent:
    """A sink that wants nothing."""

    def deliver(self, deliveries: list[Delivery]) -> None: ...
    def interrupted(self, reason: str) -> None: ...
    def resubscribed(self, channels: Sequence[str]) -> None: ...
    def restored(self) -> None: ...


@contextlib.asynccontextmanager
async def connected(settings: Settings, sink: Sink) -> AsyncIterator[Broker]:
    """The broker of the nodes, ready. Raises SettingsError for one that cannot be shared, Unavailable after 3 s."""
    if settings.broker.startswith("memory:"):
        raise SettingsError(
            "memory:// lives inside one node: name the Redis your nodes use with --broker redis://host:6379/0"
        )
    node_id = f"console.{secrets.token_hex(4)}"
    options = dataclasses.replace(settings.broker_options(), visitor=True)
    try:
        broker = broker_from_url(settings.broker, node_id=node_id, options=options)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    await broker.start(sink)
    try:
        async with asyncio.timeout(CONNECT_S):
            await broker.wait_ready()
    except TimeoutError:
        reason = broker.reason or "it does not answer"
        raise Unavailable(f"cannot use the broker {redact(settings.broker)}: {reason}") from None
    else:
        yield broker
    finally:
        await broker.close()


async def publish(settings: Settings, room: str, text: str) -> Position:
    """Append ``text`` (any JSON) to the room's log. Raises SettingsError for a bad room or text, and BrokerError."""
    check_room(room)
    try:
        data = jsontext.encode(orjson.loads(text), text.encode())
    except ValueError as error:
        raise SettingsError(f"the message is no JSON ({error}): a text is written '\"hello\"'") from None
    payload = encode_message(events.message_tail("null", time.time(), data))
    async with connected(settings, Silent()) as broker:
        return await broker.append(room, payload, history=settings.history_of(room))


async def tail(settings: Settings, room: str, since: int | None, count: int | None, show: Show) -> None:
    """Show the room's messages in order and without a hole, from offset ``since`` (None: from now) on, until ``count``
    are shown (None: for ever). A log that was lost, forked or trimmed goes on where it stands now."""
    check_room(room)
    follower = _Follower(room, count, show)
    async with connected(settings, follower) as broker:
        await broker.subscribe(f"room:{room}")
        await follower.follow(broker, since)


class _Follower:
    """The broker tells it what came; ``follow`` shows it. The judgement is that of the nodes (server/sync.py)."""

    def __init__(self, room: str, count: int | None, show: Show) -> None:
        self._room = room
        self._left = count
        self._show = show
        self._log = RoomLog()
        self._arrived: asyncio.Queue[Entry | None] = asyncio.Queue()

    def deliver(self, deliveries: list[Delivery]) -> None:
        for _, item in deliveries:
            if isinstance(item, Entry):
                self._arrived.put_nowait(item)

    def resubscribed(self, channels: Sequence[str]) -> None:
        self._arrived.put_nowait(None)  # anything may have been missed

    def interrupted(self, reason: str) -> None: ...
    def restored(self) -> None: ...

    async def follow(self, broker: Broker, since: int | None) -> None:
        page = await broker.read(self._room, since, PAGE_ENTRIES)
        if page.entries:  # stand before the first entry that is there, wherever `since` is
            first = page.entries[0]
            self._log.position = Position(first.epoch, first.offset - 1, first.prev)
        await self._apply(broker, self._log.page(page))
        while self._left is None or self._left > 0:
            entry = await self._arrived.get()
            if entry is None:
                self._log.suspect()
                await self._apply(broker, [self._log.read()])
            else:
                verdict = self._log.frame(entry)
                if isinstance(verdict, Read):
                    await self._apply(broker, [verdict])
                elif verdict:
                    self._print([entry])

    async def _apply(self, broker: Broker, effects: list[Effect]) -> None:
        while effects:
            effect, *effects = effects
            if isinstance(effect, Deliver):
                self._print(effect.entries)
            elif isinstance(effect, Read):
                try:
                    effects = self._log.page(await broker.read(self._room, effect.since, PAGE_ENTRIES))
                except Unavailable:
                    await broker.wait_ready()
                    effects = [self._log.read()]

    def _print(self, entries: list[Entry]) -> None:
        for entry in entries[: self._left]:
            _, rest = decode_message(entry.payload)
            message = orjson.loads(events.message_frame(events.message_head(self._room), entry.offset, entry.tag, rest))
            self._show({name: value for name, value in message.items() if name not in ("op", "type")})
            if self._left is not None:
                self._left -= 1


Tell = Callable[[str, bool | None, list[str]], None]
"""Takes a user who came or went (or "" and None: this is how it stands), and all who are here then (JSON text)."""


async def presence(settings: Settings, room: str | None, watch: bool, tell: Tell) -> None:
    """Tell who is in a room, or (None) anywhere; with ``watch`` go on with who comes and goes, for ever. What may have
    been missed is read again and told as differences."""
    if room is not None:
        check_room(room)
    watcher = _Watcher(room)
    async with connected(settings, watcher) as broker:
        if watch:
            await broker.subscribe("presence" if room is None else f"room:{room}")
        await watcher.follow(broker, watch, tell)


class _Watcher(Silent):
    """The broker tells it what changed; ``follow`` tells it on. The judgement is that of the nodes."""

    def __init__(self, room: str | None) -> None:
        self._room = room
        self._follower = Follower()
        self._arrived: asyncio.Queue[Change | None] = asyncio.Queue()

    def deliver(self, deliveries: list[Delivery]) -> None:
        for _, item in deliveries:
            if isinstance(item, Change):
                self._arrived.put_nowait(item)

    def resubscribed(self, channels: Sequence[str]) -> None:
        self._arrived.put_nowait(None)  # anything may have been missed

    async def follow(self, broker: Broker, watch: bool, tell: Tell) -> None:
        await self._read(broker)
        tell("", None, sorted(self._follower.users))
        while watch:
            change = await self._arrived.get()
            verdict = "behind" if change is None else self._follower.apply(change)
            if verdict == "behind":
                for user, online in await self._read(broker):
                    tell(user, online, sorted(self._follower.users))
            elif change is not None and verdict == "changed":
                tell(change.user, change.online, sorted(self._follower.users))

    async def _read(self, broker: Broker) -> list[Difference]:
        while True:
            try:
                roster = await broker.presence.roster(self._room)
            except Unavailable:
                await broker.wait_ready()
                continue
            settling = roster.settling_s > 0
            if settling:
                asyncio.get_running_loop().call_later(roster.settling_s, self._arrived.put_nowait, None)
            return self._follower.replace(roster, settling=settling)


async def nodes(settings: Settings) -> list[dict[str, object]]:
    """The descriptions of the nodes that live, by name. Raises BrokerError."""
    async with connected(settings, Silent()) as broker:
        return sorted(await broker.nodes(), key=lambda node: str(node["node"]))


def check_room(room: str) -> None:
    if not protocol.room_is_valid(room):
        raise SettingsError(
            f"{room!r} is no room name: 1 to 128 characters of A-Z a-z 0-9 _ . : @ / -, not beginning __"
        )
