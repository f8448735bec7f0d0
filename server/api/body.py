"""The body of a request: how much of it is read, how long, and how a caller hears that the rest is not."""

from __future__ import annotations

import asyncio
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Send

from server import jsontext
from server.api.problems import Problem

MAX_BODY_BYTES: Final = 1024 * 1024
BODY_WITHIN_S: Final = 10.0
DISCARDED_BYTES: Final = 4 * MAX_BODY_BYTES
DISCARD_S: Final = 2.0
"""So much, so long is read and thrown away behind an answer that came before the end of the body."""


class UnreadBody(Problem):
    """The rest of the body is not wanted, and the connection ends with the answer: see :func:`answer_unread`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail, headers={"Connection": "close"})


async def body_of(request: Request) -> object:
    """The JSON in the body. Raises :class:`Problem`, :class:`UnreadBody` for one too large or too slow."""
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem("unsupported_media_type", "send the body as JSON, with Content-Type: application/json")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise UnreadBody("timeout", f"the body did not come within {BODY_WITHIN_S:g} s: send it again") from None
    source = bytes(body)
    try:
        value = orjson.loads(source)
        jsontext.encode(None, source)  # what orjson lets pass: integers of more than 64 bits
    except ValueError as error:
        raise Problem("bad_request", f"the body is no JSON: {error}") from None
    return value


async def answer_unread(response: Response, receive: Receive, send: Send) -> None:
    """Answer at once, and close only when the caller has sent the rest, up to a limit (RFC 9112 §9.6). A close with
    bytes unread is a reset: it would take the answer from a caller who reads it after all is sent, as most do."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
    left_bytes = DISCARDED_BYTES
    try:
        async with asyncio.timeout(DISCARD_S):
            while left_bytes > 0:
                event = await receive()
                left_bytes -= len(event.get("body", b""))
                if not event.get("more_body"):
                    break
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _too_large() -> Problem:
    return UnreadBody("too_large", f"a body has at most {MAX_BODY_BYTES} bytes: send less, or smaller batches")
