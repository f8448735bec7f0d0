"""How a connection becomes part of a node: it is entered, its channels are subscribed, and it is welcomed."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Collection
from typing import TYPE_CHECKING

from broker.base import Unavailable
from server import events
from server.connection import BUSY, Connection

if TYPE_CHECKING:
    from server.hub import LocalHub


class Reception:
    def __init__(self, hub: LocalHub) -> None:
        self.waiting: set[Connection] = set()
        """Attached, their channels not confirmed yet: what already arrives there would come before the welcome."""
        self._hub = hub
        self._last_id = 0

    def attach(
        self, connection: Connection, path: str, user: str | None, session: str | None
    ) -> Collection[asyncio.Future[None]]:
        """Make a connection part of the node: from here on it is told what concerns its path, user and rooms.

        On ``/ws`` it gets ``welcome`` first. Its requests wait until its own channels are subscribed (at most a
        second), so that what is sent to its user right after the welcome arrives. Returns what they wait for.
        """
        hub = self._hub
        self._last_id += 1
        connection.id = self._last_id
        connection.path = path
        connection.user = user
        connection.session = session or secrets.token_urlsafe(16)
        connection.listener = hub
        hub.counts.connections += 1
        hub.counts.connections_total += 1
        hub.counts.connections_plain += connection.lane == "plain"
        hub.enter(connection)
        channels = [f"path:{path}"]
        if user is not None:
            channels.append(f"user:{user}")
        if hub.settings.presence_broadcast == "all":
            channels.append("presence")
        waiting = {w for w in map(hub.interest.acquire, channels) if w is not None}
        if waiting and hub.broker.ready:
            connection.hold(BUSY)
            self.waiting.add(connection)

            def confirmed(future: asyncio.Future[None]) -> None:
                waiting.discard(future)
                if not waiting:
                    self._welcome(connection)
                    connection.release(BUSY)

            subscribing = tuple(waiting)
            for future in subscribing:
                future.add_done_callback(confirmed)
            return subscribing
        self._welcome(connection)
        return ()

    def _welcome(self, connection: Connection) -> None:
        hub = self._hub
        self.waiting.discard(connection)
        if connection.closed:
            return
        if connection.user is not None:
            connection.present = True
            hub.presence.came(connection.user, None)
        self.follow_everybody()
        if connection.path == "/ws":
            settings = hub.settings
            connection.send_event(
                events.welcome(
                    session=connection.session,
                    node=hub.broker.node_id,
                    user=connection.user,
                    ping_s=settings.ping_s,
                    max_message=settings.max_message_bytes,
                )
            )
        hub.expiry.watch(connection, connection.identity.expires_at)
        if hub.degraded_since is not None and not connection.raw:
            connection.send_event(events.degraded(hub.degraded_since))

    def forget(self, connection: Connection) -> None:
        """It has gone."""
        self.waiting.discard(connection)

    def follow_everybody(self) -> None:
        """Where everybody hears of everybody, the node follows the whole set as long as it has a connection."""
        hub = self._hub
        wanted = hub.settings.presence_broadcast == "all" and len(hub.paths) > 0
        if wanted and hub.broker.ready and not hub.presence.is_followed(None):
            hub.tasks.spawn(self._follow(None), "follow everybody")

    async def _follow(self, room: str | None) -> None:
        if self._hub.presence.is_followed(room):
            return  # several connections asked in one tick, and there is one unfollow() for all of them
        with contextlib.suppress(Unavailable):  # tried again by the next connection and by restored()
            await self._hub.presence.follow(room)
