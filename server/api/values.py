"""Names and values in requests: what is allowed, said once for the check and for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema

from server import jsontext, protocol
from server.api.problems import Problem
from server.identity import user_text

MAX_PATH_CHARS: Final = 512


class Given(BaseModel):
    """What a request says: strictly, and nothing that is not known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Asked(BaseModel):
    """What a query asks. Everything in it comes as text."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Reply(BaseModel):
    """What an operation answers; only described, for the document and the tests: handlers write plain dicts."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _room(value: str) -> str:
    if not protocol.room_is_valid(value):
        raise ValueError(f"a room is {protocol.ROOM_RULE}")
    return value


def _user(value: object) -> str:
    # In JSON 42.0 is an integer.
    return user_text(int(value) if isinstance(value, float) and value.is_integer() else value)


def _user_in_query(value: object) -> str:
    text = str(value)
    if not text.startswith('"'):
        return user_text(protocol.parse_user_id(text))
    try:
        return user_text(orjson.loads(text))
    except orjson.JSONDecodeError:
        raise ValueError(f'a user id in quotes is JSON text, such as "42"; it is {protocol.USER_RULE}') from None


def _path(value: str) -> str:
    if not value.startswith("/") or len(value) > MAX_PATH_CHARS:
        raise ValueError(f'a path begins with / and has at most {MAX_PATH_CHARS} characters, such as "/ws"')
    return value


_ROOM_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": "^(?!__)[A-Za-z0-9_.:@/-]{1,128}$",
    "description": protocol.ROOM_RULE,
    "examples": ["chat:lobby"],
}
_USER_NAME = "^(?!__)[A-Za-z0-9_.:@/|+-]{1,128}$"
_INTEGER: dict[str, Any] = {"type": "integer", "minimum": -protocol.MAX_INTEGER, "maximum": protocol.MAX_INTEGER}
USER_SCHEMA: dict[str, Any] = {
    "anyOf": [_INTEGER, {"type": "string", "pattern": _USER_NAME}],
    "description": f'42 and "42" are two users. {protocol.USER_RULE}',
    "examples": [42],
}

Room = Annotated[str, AfterValidator(_room), WithJsonSchema(_ROOM_SCHEMA)]
User = Annotated[str, PlainValidator(_user), WithJsonSchema(USER_SCHEMA)]
"""Validated it is JSON text, as everywhere in the node."""
UserInQuery = Annotated[
    str,
    BeforeValidator(_user_in_query),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": '^(?:(?!__)[A-Za-z0-9_.:@/|+-]{1,128}|"(?!__)[A-Za-z0-9_.:@/|+-]{1,128}")$',
            "description": 'Digits are the integer; "42" in quotes is the text.',
            "examples": ["42"],
        }
    ),
]
Path = Annotated[
    str,
    AfterValidator(_path),
    WithJsonSchema({"type": "string", "pattern": "^/", "maxLength": MAX_PATH_CHARS, "examples": ["/ws"]}),
]
Data = Annotated[
    Any,
    Field(
        description=f"Any JSON, at most {jsontext.MAX_DEPTH} levels deep, with integers of at most 64 bits.",
        examples=[{"text": "hi"}],
    ),
]
"""What its description says and a schema cannot say, :func:`checked` and the reading of the body look at."""
RetryKey = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="The same one in the same room within two minutes, on any node, is one message with one position.",
    ),
]
Offset = Annotated[int, Field(ge=0, le=protocol.MAX_OFFSET)]


def checked(data: object, max_bytes: int) -> bytes:
    """``data`` as the JSON text that is stored and sent. Raises Problem. (Integers of more than 64 bits are looked for
    in the whole body, in server/api/endpoint.py.)"""
    try:
        text = jsontext.encode(data)
    except ValueError as error:
        raise Problem("bad_request", f"data: {error}") from None
    if len(text) > max_bytes:
        raise Problem("too_large", f"data has {len(text)} bytes, {max_bytes} are allowed: send a link to it instead")
    return text
