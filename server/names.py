"""Names of rooms, users and sessions, and the numbers that bound what a client may say (docs/protocol.md). Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

UserId = int | str

MAX_OFFSET: Final = 2**53 - 1
MAX_INTEGER: Final = 2**53
"""Of request and user ids, in both directions: beyond it JavaScript's numbers are no longer exact."""
MAX_ID_CHARS: Final = 64
MAX_MESSAGE_ID_CHARS: Final = 128
MAX_NAME_CHARS: Final = 128
MAX_HISTORY: Final = 500
STATUSES: Final = ("delivered", "read")

ROOM_RULE: Final = "1-128 characters of A-Z a-z 0-9 _ . : @ / -, not beginning with __"
USER_RULE: Final = "an integer within 2^53, or 1-128 characters of A-Z a-z 0-9 _ . : @ / - | + not beginning with __"

_room = re.compile(r"(?!__)[A-Za-z0-9_.:@/-]{1,128}").fullmatch
_user = re.compile(r"(?!__)[A-Za-z0-9_.:@/|+-]{1,128}").fullmatch
_digits = re.compile(r"0|[1-9][0-9]{0,15}").fullmatch
_session = re.compile(r"[A-Za-z0-9_-]{16,64}").fullmatch
_key = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch


def room_is_valid(room: object) -> bool:
    return type(room) is str and _room(room) is not None


def user_id_is_valid(user: object) -> bool:
    """Takes an id as it stands in a token: 42 and "42" are both valid, and two users."""
    if type(user) is int:
        return -MAX_INTEGER <= user <= MAX_INTEGER
    return type(user) is str and _user(user) is not None


def parse_user_id(text: str) -> UserId:
    """A user id from a place that knows only text (``?user=``, the command line): digits without a leading zero, up to
    2^53, are the integer. Raises ValueError."""
    if _digits(text) and int(text) <= MAX_INTEGER:
        return int(text)
    if _user(text):
        return text
    raise ValueError(f"not a user id: it must be {USER_RULE}")


def key_is_valid(key: object) -> bool:
    """Whether it may be a retry key of a message."""
    return type(key) is str and _key(key) is not None


def session_is_valid(session: str) -> bool:
    """Whether it may be a session key that some node gave out."""
    return _session(session) is not None


def room_matches(pattern: str, room: str) -> bool:
    """``*`` in the pattern stands for any characters, none included. Takes time in proportion to the length of both."""
    return _pattern(pattern).fullmatch(room) is not None


@lru_cache(maxsize=4096)
def _pattern(pattern: str) -> re.Pattern[str]:
    first, *rest = map(re.escape, re.sub(r"\*+", "*", pattern).split("*"))
    if not rest:
        return re.compile(first)
    # What stands between two stars is taken where it comes first, and not looked for again: with `.*` in its place
    # twelve stars would keep a node busy for years over a room of a hundred letters.
    return re.compile(first + "".join(f"(?>.*?{part})" for part in rest[:-1]) + ".*" + rest[-1])
