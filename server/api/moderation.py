"""Operations that send connections away."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from server.api.operation import Call, Operation
from server.api.problems import Problem
from server.api.values import Asked, Given, Reply, Room, User
from server.revocation import MAX_FOR_S, Kind

DEFAULT_REVOCATION_S: Final = 24 * 3600.0

Session = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_-]{16,64}$", description="A session key, from a connection's `welcome`."),
]
TokenId = Annotated[str, Field(min_length=1, max_length=512, description="A token's claim `jti`.")]


_NOT_NULL: Final[dict[str, Any]] = {"not": {"type": "null"}}


class Disconnect(Given):
    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: _NOT_NULL}} for name in ("user_id", "session", "token_id")
            ]
        }
    )
    user_id: User | None = None
    session: Session | None = None
    token_id: TokenId | None = None


class Revoke(Disconnect):
    for_s: Annotated[float, Field(gt=0, le=MAX_FOR_S, description="As long as tokens live.")] = DEFAULT_REVOCATION_S


class Membership(Given):
    user_id: User
    room: Room


class Forget(Given):
    user_id: User


class RoomQuery(Asked):
    room: Room


class Done(Reply):
    done: Literal[True]


class Forgotten(Reply):
    """``rooms``: in so many the user had receipt marks."""

    rooms: int


async def disconnect(call: Call, given: Disconnect) -> dict[str, Any]:
    _somebody(given)
    await call.hub.cluster.disconnect(given.user_id, session=given.session, token_id=given.token_id)
    return {"done": True}


async def revoke(call: Call, given: Revoke) -> dict[str, Any]:
    _somebody(given)
    named: tuple[tuple[Kind, str | None], ...] = (
        ("user", given.user_id),
        ("session", given.session),
        ("token", given.token_id),
    )
    for kind, value in named:
        if value is not None:
            await call.hub.revocations.revoke(kind, value, given.for_s)
    return {"done": True}


async def subscribe(call: Call, given: Membership) -> dict[str, Any]:
    await call.hub.cluster.put_user(given.user_id, given.room, True)
    return {"done": True}


async def unsubscribe(call: Call, given: Membership) -> dict[str, Any]:
    await call.hub.cluster.put_user(given.user_id, given.room, False)
    return {"done": True}


async def clear(call: Call, asked: RoomQuery) -> dict[str, Any]:
    await call.hub.broker.clear(asked.room)
    return {"done": True}


async def forget(call: Call, given: Forget) -> dict[str, Any]:
    return {"rooms": await call.hub.cluster.forget_user(given.user_id)}


def _somebody(given: Disconnect) -> None:
    if given.user_id is None and given.session is None and given.token_id is None:
        raise Problem("bad_request", "say who: user_id, session or token_id")


OPERATIONS: Final = (
    Operation(
        "POST",
        "/disconnect",
        "admin",
        "Close connections on all nodes",
        "With 4004: those for which everything holds that is given. They may come back.",
        Disconnect,
        Done,
        disconnect,
    ),
    Operation(
        "POST",
        "/revoke",
        "admin",
        "Close connections and let them not come back",
        "Each that is given, for `for_s` seconds, on all nodes. A user's tokens that are issued later are good.",
        Revoke,
        Done,
        revoke,
    ),
    Operation(
        "POST",
        "/subscribe",
        "admin",
        "Put a user's connections into a room",
        "Those that are open now, on all nodes; grants and authorizers are not asked. Each is told with a `joined` "
        "event that has the position in the room. At most once.",
        Membership,
        Done,
        subscribe,
    ),
    Operation(
        "POST",
        "/unsubscribe",
        "admin",
        "Take a user's connections out of a room",
        "Each that was in it is told with a `left` event. They may join again if they are allowed to. At most once.",
        Membership,
        Done,
        unsubscribe,
    ),
    Operation(
        "DELETE",
        "/history",
        "admin",
        "Delete the messages of a room",
        "All that are kept. Offsets go on, members stay; who comes back from before gets `recovered: false`.",
        RoomQuery,
        Done,
        clear,
    ),
    Operation(
        "POST",
        "/forget",
        "admin",
        "Delete what is kept about a user",
        "Closes the connections and removes the receipt marks in all rooms. Messages the user wrote belong to their "
        "rooms: they end with the rooms' history, or are deleted with it. Revoke the user first, so that nothing new "
        "comes.",
        Forget,
        Forgotten,
        forget,
    ),
)
