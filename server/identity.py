"""Who a connection is and what its token allows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import orjson

from server import protocol
from server.names import room_matches

Action = Literal["join", "publish", "history", "presence"]
"""What somebody may want in a room. Typing and receipts belong to being in it."""
ACTIONS: Final[tuple[Action, ...]] = ("join", "publish", "history", "presence")


class Grants(NamedTuple):
    """What a token's claims allow: ``{"rooms": {"chat:*": ["join", "publish"]}, "broadcast": true}``.

    ``rooms`` None (no such claim) leaves rooms to the application's authorizers; otherwise both must agree. Who may
    join may read the history, too."""

    rooms: tuple[tuple[str, frozenset[str]], ...] | None = None
    broadcast: bool = False

    def allows(self, room: str, action: Action) -> bool:
        if self.rooms is None:
            return True
        wanted = {action, "join"} if action == "history" else {action}
        return any(wanted & actions and room_matches(pattern, room) for pattern, actions in self.rooms)


NO_GRANTS: Final = Grants()


class Identity(NamedTuple):
    """Of a connection, for as long as it lives or until a fresh token replaces it."""

    user: str | None = None
    """The user id as JSON text (``42`` and ``"42"`` are two users); None is anonymous."""
    expires_at: float | None = None
    """Unix time after which the connection is closed, or None."""
    token_id: str | None = None
    """The token's claim ``jti``, by which it can be revoked."""
    issued_at: float | None = None
    """Unix time; a user's revocation spares tokens issued after it."""
    grants: Grants = NO_GRANTS
    principal: Any = None
    """What handlers see as ``conn.user``: a :class:`User`, or the application's own object."""


ANONYMOUS: Final = Identity()


class User(NamedTuple):
    """What ``conn.user`` is where the application has no object of its own."""

    id: int | str
    claims: Mapping[str, Any]
    """Of the token; empty for other credentials."""


def user_text(user: object) -> str:
    """A user id as JSON text: 42 and "42" are two users. ValueError for what is not a user id."""
    if isinstance(user, bool) or not protocol.user_id_is_valid(user):
        raise ValueError(f"a user id is {protocol.USER_RULE}")
    return orjson.dumps(user).decode()


def grants_of(claims: Mapping[str, Any]) -> Grants:
    """Read the claims ``rooms`` and ``broadcast``. ValueError for what is not shaped like grants: a mistake in them
    must never allow more than was meant."""
    rooms = claims.get("rooms")
    broadcast = claims.get("broadcast", False)
    if not isinstance(broadcast, bool):
        raise ValueError("the claim broadcast is true or false")
    if rooms is None:
        return Grants(None, broadcast) if broadcast else NO_GRANTS
    if not isinstance(rooms, dict) or not all(
        isinstance(actions, list) and all(action in ACTIONS for action in actions) for actions in rooms.values()
    ):
        raise ValueError(f"the claim rooms maps room patterns to lists of {', '.join(ACTIONS)}")
    return Grants(tuple((pattern, frozenset(actions)) for pattern, actions in rooms.items()), broadcast)
