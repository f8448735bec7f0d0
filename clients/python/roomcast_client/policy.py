"""When to come back: what each close code asks for (docs/protocol.md, "Close codes"), and full jitter. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

BASE_S: Final = 0.5
CAP_S: Final = 30.0
STABLE_S: Final = 5.0
"""A connection that lived so long ends the row of failures."""

ABNORMAL: Final = 1006
"""No close frame: the node was killed, the network is gone, nobody listens."""
UNAUTHENTICATED: Final = 4001
MAX_DENIED: Final = 3
"""So many fresh tokens refused in a row, none ever good: no further one will be."""
TOKEN_EXPIRED: Final = 4003


class Verdict(NamedTuple):
    """What to do after a close. ``fatal`` tells the application what to change; empty: reconnect."""

    fatal: str
    least_attempt: int = 0
    """Wait as after so many failures in a row: the server asked for patience."""


_RECONNECT = Verdict("")
_PATIENCE = Verdict("", 4)

_VERDICTS: Final = {
    1002: Verdict("the server found a broken frame: fix the program, or what stands between it and the node"),
    1003: Verdict("the server does not take this kind of frame: connect to a path that speaks roomcast.json.v1"),
    1007: Verdict("the server found invalid UTF-8: fix the program"),
    1008: Verdict("the application behind the server refused this connection"),
    1009: Verdict("a message was too large: send less at once"),
    1011: Verdict("", 2),
    1013: _PATIENCE,
    4001: Verdict("the server knows no such user: give a valid token"),
    4002: Verdict("ten bad requests within ten seconds: fix the program"),
    4004: Verdict("disconnected by an operator"),
    4009: _PATIENCE,
    4010: _PATIENCE,
}

_HTTP: Final = {
    400: "the server does not understand the handshake: check the URL",
    401: "the proxy before the server wants other credentials",
    403: "the server refuses this Origin (add it to ROOMCAST_ORIGINS) or has nothing there: it should end in /ws",
    404: "there is no WebSocket at this URL: it should end in /ws",
    426: "the server wants another version of WebSocket",
}


def after_close(code: int) -> Verdict:
    """The verdict on a WebSocket close code. Unknown codes are worth another try."""
    return _VERDICTS.get(code, _RECONNECT)


def after_http(status: int) -> Verdict:
    """The verdict on a handshake answered with this HTTP status instead of 101."""
    return Verdict(_HTTP[status]) if status in _HTTP else _PATIENCE


def backoff_s(attempt: int, luck: float) -> float:
    """Full jitter: anything up to the exponential limit, ``luck`` in [0, 1) deciding, so that a thousand clients of a
    dead node do not come back together (AWS Architecture Blog, "Exponential Backoff And Jitter")."""
    limit: float = min(CAP_S, BASE_S * 2 ** min(attempt, 10))
    return luck * limit
