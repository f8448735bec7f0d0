"""What checks share: the way to the target, who they are, and the connections that are open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.check.client import Client, Dialer
from server.check.report import Trouble
from server.check.tickets import Tickets


@dataclass
class World:
    dialer: Dialer
    tickets: Tickets
    room: str
    origins: tuple[str, ...] = ()
    """Of pages that must be allowed, beside the target's own."""
    direct: bool = False
    """The target is a node itself: what a proxy hides must be there."""
    min_nodes: int = 1
    development: bool = False
    """Whether the nodes were found in development mode."""
    members: list[Client] = field(default_factory=list)
    """Two, of the two users, once they are let in; on two nodes where there are two."""
    opened: list[Client] = field(default_factory=list)

    @property
    def ping_s(self) -> float:
        """Between two pings of the nodes."""
        return float(self.members[0].greeting["ping"])

    @property
    def nodes(self) -> tuple[str, str]:
        """On which the two members are."""
        first, second = (str(member.greeting["node"]) for member in self.members)
        return first, second

    async def open(self, query: Mapping[str, str], origin: str | None = None) -> Client:
        """A connection that is closed at the end of all checks. Raises Refused, and Trouble."""
        client = await self.dialer.open(query, origin)
        self.opened.append(client)
        return client

    async def enter(self, number: int, session: str | None = None) -> Client:
        """A connection of one of the two users, who is let in. Raises Refused, and Trouble."""
        query = self.tickets.queries[number]
        client = await self.open({**query, "session": session} if session else query)
        if not await client.is_let_in():
            raise Trouble(f"not let in this time: closed with {client.refusal}")
        return client

    async def close(self) -> None:
        async with asyncio.TaskGroup() as group:
            for client in self.opened:
                group.create_task(_close(client))


async def _close(client: Client) -> None:
    with contextlib.suppress(TimeoutError, OSError):
        await client.close()
