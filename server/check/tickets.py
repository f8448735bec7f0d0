"""Who the checks are: what they put into the query to be let in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from server.minting import mint
from server.settings import Settings

USERS: Final = ("roomcast-check-1", "roomcast-check-2")
LASTS: Final = "5m"


class Tickets(NamedTuple):
    kind: Literal["token", "secret", "dev"]
    """A token was given, or made from the nodes' secret; without both only a node in development mode lets in."""
    queries: tuple[Mapping[str, str], Mapping[str, str]]
    """Of two users, who are one where a token was given."""


def tickets(settings: Settings, token: str | None) -> Tickets:
    """Raises SettingsError."""
    if token is not None:
        return Tickets("token", ({"token": token}, {"token": token}))
    if settings.secret is not None:
        made = [{"token": mint(settings, user, LASTS, [], False)} for user in USERS]
        return Tickets("secret", (made[0], made[1]))
    return Tickets("dev", ({"user": USERS[0]}, {"user": USERS[1]}))
