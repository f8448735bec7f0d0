"""A client for checks: it opens connections as browsers and applications do, and plain HTTP beside them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from server.check.diagnosis import Answer
from server.check.report import Trouble
from server.check.target import Target

WITHIN_S: Final = 10.0
"""Each step of a check."""
MAX_BODY_BYTES: Final = 65536

Frame = dict[str, Any]


class Refused(Exception):
    """The handshake was answered, but not with 101."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status}: {answer.text}")
        self.answer = answer


class Client:
    """One connection. Frames that nobody waited for yet are kept in ``frames``, in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.frames: list[Frame] = []
        self.greeting: Frame = {}
        """The welcome, once it came."""

    @property
    def close_code(self) -> int | None:
        return self._socket.close_code

    async def next(self, wanted: Callable[[Frame], bool], within_s: float = WITHIN_S) -> Frame:
        """The first frame that is wanted; it is taken away. Raises TimeoutError, and ConnectionClosed."""
        async with asyncio.timeout(within_s):
            while True:
                for frame in self.frames:
                    if wanted(frame):
                        self.frames.remove(frame)
                        return frame
                self.frames.append(json.loads(await self._socket.recv()))

    async def ask(self, op: str, **fields: Any) -> Frame:
        """The reply to a request, which may be a refusal."""
        number = next(self._ids)
        await self._socket.send(json.dumps({"op": op, "id": number, **fields}))
        return await self.next(lambda frame: frame.get("op") == "reply" and frame.get("id") == number)

    async def ok(self, op: str, **fields: Any) -> Frame:
        """The reply to what must be granted."""
        reply = await self.ask(op, **fields)
        if not reply.get("ok"):
            raise Trouble(
                f"{op} was refused ({reply.get('code')}): {reply.get('message')}",
                "let the user of the token do this in the room, or name another with --room",
            )
        return reply

    async def is_let_in(self) -> bool:
        """Whether the node welcomes it, or else closes: then ``refusal`` tells how."""
        try:
            self.greeting = await self.next(lambda frame: frame.get("op") == "welcome")
        except ConnectionClosed:
            return False
        return True

    @property
    def refusal(self) -> str:
        """Code and reason of the close."""
        return f"{self._socket.close_code} {self._socket.close_reason or ''}".strip()

    async def ended(self, within_s: float) -> bool:
        """Whether the connection ends within this time, in which nothing is sent."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    self.frames.append(json.loads(await self._socket.recv()))
        except TimeoutError:
            return False
        except ConnectionClosed:
            return True

    def cut(self) -> None:
        """End it as a lost network does: without a word."""
        self._socket.transport.abort()

    async def close(self) -> None:
        await self._socket.close()


class _Connect(connect):
    """Follows no redirect: browsers do not either."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Dialer:
    """Opens connections to the target."""

    def __init__(self, target: Target, trust: ssl.SSLContext | None) -> None:
        self.target = target
        self.trust = trust
        """None for a target without TLS."""

    async def open(self, query: Mapping[str, str], origin: str | None = None) -> Client:
        """Raises :class:`Refused` for an answer that is no 101, Trouble for none at all."""
        url = self.target.url + (f"?{urlencode(query)}" if query else "")
        try:
            socket = await _Connect(
                url,
                origin=origin,  # type: ignore[arg-type]  # a str of its own kind
                ssl=self.trust,
                server_hostname=self.target.host if self.trust is not None else None,
                compression=None,
                ping_interval=None,
                open_timeout=WITHIN_S,
                close_timeout=2,
                max_size=None,
                proxy=None,
            )
        except InvalidStatus as error:
            response = error.response
            headers = {name.lower(): value for name, value in response.headers.raw_items()}
            raise Refused(Answer(response.status_code, headers, bytes(response.body or b""))) from None
        except TimeoutError:
            raise Trouble(
                f"the handshake was not answered within {WITHIN_S:g} s", "can the proxy reach the nodes?"
            ) from None
        except InvalidMessage as error:
            raise Trouble(f"what answers does not speak HTTP: {error.__cause__ or error}", "check the port") from None
        except InvalidHandshake as error:
            raise Trouble(
                f"the handshake was answered wrongly: {error}", "is there something that answers in the nodes' place?"
            ) from None
        except OSError as error:
            raise Trouble(f"no connection: {in_words(error)}", "is the proxy running, on this port?") from None
        return Client(socket)

    async def get(self, path: str) -> Answer:
        """Plain HTTP. Raises OSError, TimeoutError, ValueError for what is no HTTP."""
        async with asyncio.timeout(WITHIN_S):
            target = self.target
            reader, writer = await asyncio.open_connection(
                target.host, target.port, ssl=self.trust, server_hostname=target.host if self.trust else None
            )
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {target.authority}\r\nConnection: close\r\n\r\n".encode())
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                body = await _up_to(reader, MAX_BODY_BYTES)
            except asyncio.IncompleteReadError as error:
                raise ValueError("the answer ended early") from error
            finally:
                writer.close()
            lines = (line.partition(":") for line in head[1:] if line)
            return Answer(int(head[0].split()[1]), {n.lower(): v.strip() for n, _, v in lines}, body)


def in_words(error: OSError) -> str:
    """What the system calls it, without numbers and addresses."""
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror or str(error)


async def _up_to(reader: asyncio.StreamReader, size: int) -> bytes:
    body = b""
    while len(body) < size and (part := await reader.read(size - len(body))):
        body += part
    return body
