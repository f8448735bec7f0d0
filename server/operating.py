"""What an operator does from the command line through the broker, beside the nodes: see and send away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from broker.base import Delivery, Signal
from server import closing, protocol
from server.census import MAX_ROOMS, Questions, RoomsPage, reply_channel
from server.console import PAGE_ENTRIES, Silent, check_room, connected
from server.identity import user_text
from server.payload import (
    CONTROL,
    CensusAnswer,
    DisconnectSignal,
    decode_message,
    decode_signal,
    encode_signal,
)
from server.settings import Settings, SettingsError


class _Listener(Silent):
    """Hears what nodes answer."""

    def __init__(self) -> None:
        self.questions = Questions()

    def deliver(self, deliveries: list[Delivery]) -> None:
        for _, item in deliveries:
            if isinstance(item, Signal):
                signal = decode_signal(item.payload)
                if isinstance(signal, CensusAnswer):
                    self.questions.answered(signal)


async def rooms(settings: Settings, pattern: str, show: Callable[[RoomsPage], None]) -> None:
    """Show the rooms that have members, page by page. Raises BrokerError."""
    listener = _Listener()
    async with connected(settings, listener) as broker:
        channel = reply_channel(broker.node_id)
        await broker.subscribe(channel)
        after, more = "", True
        while more:
            page = await listener.questions.ask(broker, channel, after, pattern, MAX_ROOMS)
            show(page)
            more = page.more
            after = page.rooms[-1][0] if page.rooms else after


async def history(settings: Settings, room: str, limit: int) -> list[dict[str, Any]]:
    """The newest messages of a room, oldest first: offset, user_id, ts, data. Raises BrokerError."""
    check_room(room)
    messages: list[dict[str, Any]] = []
    async with connected(settings, Silent()) as broker:
        (top,) = await broker.tops([room])
        since = max(0, top.offset - limit) if top is not None else 0
        while top is not None and since < top.offset:
            page = await broker.read(room, since, min(PAGE_ENTRIES, limit - len(messages)))
            for entry in page.entries:
                _, tail = decode_message(entry.payload)
                messages.append({"room": room, "offset": entry.offset, **orjson.loads(b"{" + tail)})
                since = entry.offset
            if not page.entries or len(messages) == limit:
                break
    return messages


async def disconnect(settings: Settings, user: str | None, session: str | None, token_id: str | None) -> None:
    """Close connections on all nodes with 4004. Raises SettingsError if nobody is named, and BrokerError."""
    if user is None and session is None and token_id is None:
        raise SettingsError("say whom to disconnect: a user, --session or --token-id")
    channel = CONTROL
    if user is not None:
        try:
            channel = f"user:{user_text(protocol.parse_user_id(user))}"
        except ValueError as error:
            raise SettingsError(f"{user!r}: {error}") from None
    signal = DisconnectSignal(closing.DISCONNECTED, "disconnected by an operator", session, token_id)
    async with connected(settings, Silent()) as broker:
        await broker.publish(channel, encode_signal(signal))
