"""The opening handshake, server side (RFC 6455 §4.2), and the heads of requests that are none: what is refused before
any application sees it, and the answers. Pure.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import http
import re
from collections.abc import Iterable, Sequence
from typing import Final

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # §1.3
_ACCEPTED: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)
_NO_UPGRADE: Final = (
    b"This server speaks HTTP/1.1 and upgrades to WebSocket only: do not offer h2c or CONNECT (in Java: "
    b"HttpClient.newBuilder().version(HTTP_1_1), in curl: --http1.1).\n"
)
_token = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch


class Refused(Exception):
    """Not a handshake that we speak. ``response`` is the whole HTTP response."""

    def __init__(self, response: bytes) -> None:
        super().__init__("handshake refused")
        self.response = response


def check(method: bytes, version: str, headers: Headers) -> bytes:
    """The key of a good handshake. Raises :class:`Refused`."""
    keys: list[bytes] = []
    versions: list[bytes] = []
    hosts = bodies = upgrades = 0
    for name, value in headers:
        if name == b"sec-websocket-key":
            keys.append(value)
        elif name == b"sec-websocket-version":
            versions.append(value)
        elif name == b"host":
            hosts += 1
        elif name == b"upgrade":
            upgrades += 1
        elif name == b"content-length" or name == b"transfer-encoding":
            bodies += 1  # who reads on where it ends, and who at the first frame, would not be sure to agree
    if versions != [b"13"]:
        wanted = [(b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")]
        raise Refused(response(426, wanted, b"Use WebSocket version 13 (RFC 6455).\n"))
    try:
        good_key = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except binascii.Error:
        good_key = False
    if method != b"GET" or version != "1.1" or hosts != 1 or bodies or upgrades != 1 or not good_key:
        text = b"A WebSocket handshake is a GET over HTTP/1.1: one Host, one Sec-WebSocket-Key of 16 bytes, no body.\n"
        raise Refused(response(400, [], text))
    return keys[0]


def check_plain(version: str, headers: Headers, upgrade: bool) -> None:
    """Raise :class:`Refused` for a request of which another server in the chain may think otherwise: where it ends, for
    which host it is (RFC 9112 §3.2, §6.1), or which protocol follows. ``upgrade``: it asks for one that is not ours."""
    if upgrade:
        raise Refused(response(400, [], _NO_UPGRADE))
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding" and (version == "1.0" or value.strip().lower() != b"chunked"):
            raise Refused(response(400, [], b"Send Transfer-Encoding: chunked over HTTP/1.1, and no other encoding.\n"))
    if hosts > 1 or (not hosts and version != "1.0"):
        raise Refused(response(400, [], b"A request has one Host.\n"))
    if version not in ("1.0", "1.1"):
        raise Refused(response(400, [], b"This server speaks HTTP/1.1.\n"))


def accept(key: bytes, subprotocol: str | None, headers: Headers) -> bytes:
    """The 101. Raises ValueError for headers that would end the line they stand in."""
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    head = _ACCEPTED + base64.b64encode(digest)
    if subprotocol:
        head += b"\r\nSec-WebSocket-Protocol: " + _checked_value(subprotocol.encode("latin-1"))
    if headers:
        head += b"\r\n" + _lines(headers)
    return head + b"\r\n\r\n"


def response(status: int, headers: Headers, body: bytes) -> bytes:
    """A whole response after which the connection ends. Raises ValueError for headers as above, or no such status."""
    if not 200 <= status < 600:
        raise ValueError(f"{status} is not the status of a final response")
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    kept = [(name, value) for name, value in headers if name.lower() not in (b"content-length", b"connection")]
    if not any(name.lower() == b"content-type" for name, _ in kept):
        kept.append((b"content-type", b"text/plain; charset=utf-8"))
    kept += [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    return f"HTTP/1.1 {status} {phrase}\r\n".encode() + _lines(kept) + b"\r\n\r\n" + body


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"\r\n".join([_checked_name(name) + b": " + _checked_value(value) for name, value in headers])


def _checked_name(name: bytes) -> bytes:
    if not _token(name):
        raise ValueError(f"not a header name: {name!r}")
    return name


def _checked_value(value: bytes) -> bytes:
    if not _value(value):
        raise ValueError(f"a header's value may have no control characters: {value!r}")
    return value
