"""The operation behind the status page's login: a key for a ticket (server/ticket.py)."""

from __future__ import annotations

import time
from typing import Any, Final

from server import ticket
from server.api.operation import Call, Operation
from server.api.problems import Problem
from server.api.values import Given, Reply


class TicketWanted(Given):
    """Nothing is to be said."""


class Ticket(Reply):
    """For one handshake on `/status/feed`, as the subprotocol `roomcast.token.<ticket>`, on any node."""

    ticket: str
    expires_in_s: int


async def issue(call: Call, wanted: TicketWanted) -> dict[str, Any]:
    for key in call.hub.settings.api_keys:
        if key.name == call.caller and key.allows("read"):
            return {"ticket": ticket.issue(key, time.time()), "expires_in_s": ticket.VALID_S}
    raise Problem("unauthorized", "this key is not known any more")


OPERATIONS: Final = (
    Operation(
        "POST",
        "/status/ticket",
        "read",
        "A ticket for the status page",
        "The page asks for it by itself: a browser's WebSocket cannot carry a key.",
        TicketWanted,
        Ticket,
        issue,
    ),
)
