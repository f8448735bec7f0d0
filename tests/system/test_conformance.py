"""RFC 6455's frame rules on real sockets: an echoing endpoint of a real node, directly and through a real nginx."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from typing import NamedTuple

import pytest

from tests.support.frame_rules import CASES, Case
from tests.support.nginx import NginxServer
from tests.support.node import NodeServer
from tests.support.served import handshake
from tests.support.wires import BINARY, CLOSE, PONG, TEXT, client_frame, close_payload

pytestmark = [pytest.mark.system, pytest.mark.nginx]

IN_TIME_S = 10.0
MARK = b"that was all"


class Frame(NamedTuple):
    opcode: int
    payload: bytes


class Utf8(NamedTuple):
    name: str
    pieces: Sequence[bytes]
    """The fragments of one text message."""
    valid: bool


UTF8 = [
    Utf8("all lengths of code points", ["κόσμε €𐍈".encode()], True),
    Utf8("a code point cut into four fragments", [b"\xf0", b"\x90", b"\x8d", b"\x88"], True),
    Utf8("the last code point", [b"\xf4\x8f\xbf\xbf"], True),
    Utf8("noncharacters", [b"\xef\xbf\xbe\xef\xbf\xbf"], True),
    Utf8("NUL", [b"\0"], True),
    Utf8("C3 28", [b"\xc3\x28"], False),
    Utf8("a lone continuation byte", [b"\x80"], False),
    Utf8("overlong slash", [b"\xc0\xaf"], False),
    Utf8("overlong NUL of three bytes", [b"\xe0\x80\x80"], False),
    Utf8("a surrogate", [b"\xed\xa0\x80"], False),
    Utf8("beyond the last code point", [b"\xf4\x90\x80\x80"], False),
    Utf8("five bytes", [b"\xf8\x88\x80\x80\x80"], False),
    Utf8("cut off at the end", [b"abc\xe2\x82"], False),
    Utf8("cut off at the end of the last fragment", [b"abc", b"\xe2", b"\x82"], False),
    Utf8("wrong in the second fragment", [b"\xc3", b"\x28"], False),
    Utf8("FE and FF", [b"\xfe\xff"], False),
]


class Peer:
    """A client that sends bytes as they are, and reads what comes back frame by frame."""

    def __init__(self, connection: socket.socket, stream: BufferedReader) -> None:
        self.connection = connection
        self.stream = stream

    def frames(self) -> Iterator[Frame]:
        """Until the server ends the connection. A server's frame is whole, unmasked, without reserved bits."""
        while head := self.stream.read(2):
            assert head[0] & 0x70 == 0 and head[0] & 0x80 and head[1] < 128, head
            length = head[1]
            if length >= 126:
                length = int.from_bytes(self.stream.read(2 if length == 126 else 8), "big")
            payload = self.stream.read(length)
            assert len(payload) == length
            yield Frame(head[0] & 0x0F, payload)

    def until_marked(self) -> list[Frame]:
        """What came before the echo of a message that is sent now."""
        self.connection.sendall(client_frame(TEXT, MARK))
        found: list[Frame] = []
        for frame in self.frames():
            if frame == (TEXT, MARK):
                return found
            found.append(frame)
        raise AssertionError(f"the connection ended after {found}")


@contextmanager
def peer(port: int, path: str) -> Iterator[Peer]:
    """Connected and upgraded."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=IN_TIME_S) as connection,
        connection.makefile("rb") as stream,
    ):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(handshake(path))
        client = Peer(connection, stream)
        assert client.stream.readline().startswith(b"HTTP/1.1 101")
        while client.stream.readline().strip():
            pass
        yield client


@pytest.fixture(scope="module")
def node() -> Iterator[NodeServer]:
    with NodeServer(app="tests.support.echo_app:hub") as server:
        yield server


@pytest.fixture(scope="module")
def proxy(node: NodeServer) -> Iterator[NginxServer]:
    with NginxServer([node.port]) as server:
        yield server


@pytest.fixture(params=["direct", "nginx"])
def port(request: pytest.FixtureRequest) -> int:
    server: NodeServer | NginxServer = request.getfixturevalue({"direct": "node", "nginx": "proxy"}[request.param])
    return server.port


def expected(case: Case) -> list[Frame]:
    """Its messages as echoes, then its pongs: an echo may come later than the pong to a ping that followed it."""
    echoes = [Frame(TEXT if text else BINARY, payload) for text, payload in case.messages]
    pongs = [] if case.echo or not case.out else [Frame(PONG, case.out[2:])]
    return echoes + pongs


def check(case: Case, client: Peer, *, whole: bool, resets: bool = False) -> None:
    """``resets``: who sends on after the server closed may be reset, and miss the close frame."""
    pieces = [case.data] if whole else [case.data[i : i + 1] for i in range(len(case.data))]
    for piece in pieces:
        try:
            client.connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            assert case.code, "the server closed, and had no reason to"
            break
    if not case.code:
        assert sorted(client.until_marked()) == sorted(expected(case))
        return
    try:
        *before, last = client.frames()
    except ConnectionResetError:
        assert resets or case.name == "data after a close", "only unread bytes are answered by a reset"
        return
    assert last.opcode == CLOSE
    if case.echo:  # who closes right after a message may not hear its echo
        assert set(before) <= set(expected(case))
        assert last.payload == case.out[2:]
    else:
        assert sorted(before) == sorted(expected(case))
        assert last.payload[:2] == case.code.to_bytes(2, "big")
        last.payload[2:].decode()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_frame_rule(case: Case, port: int, node: NodeServer) -> None:
    with peer(port, "/echo") as client:
        check(case, client, whole=True)
    if len(case.data) < 300:
        with peer(port, "/echo") as client:
            check(case, client, whole=False, resets=port != node.port)  # the node lingers, nginx does not


@pytest.mark.parametrize("case", UTF8, ids=[case.name for case in UTF8])
@pytest.mark.parametrize("path", ["/echo", "/ws?user=alice"])
def test_text_is_utf8_or_the_connection_closes_with_1007(case: Utf8, path: str, port: int) -> None:
    last = len(case.pieces) - 1
    message = b"".join(
        client_frame(0 if index else TEXT, piece, fin=index == last) for index, piece in enumerate(case.pieces)
    )
    with peer(port, path) as client:
        client.connection.sendall(message)
        if not case.valid:
            end = next(frame for frame in client.frames() if frame.opcode == CLOSE)
            assert end.payload[:2] == (1007).to_bytes(2, "big")
            return
        if path == "/echo":
            assert client.until_marked() == [Frame(TEXT, b"".join(case.pieces))]
        else:
            assert any(b'"bad_request"' in frame.payload for frame in client.frames()), "no JSON, but text"


def test_a_server_that_closes_waits_for_our_answer(port: int) -> None:
    """RFC 6455 §7.1.1: the TCP connection is the server's to end, and only after the closing handshake."""
    with peer(port, "/ws?user=alice") as client:
        client.connection.sendall(client_frame(BINARY, b"\x80"))
        closed = next(frame for frame in client.frames() if frame.opcode == CLOSE)
        assert closed.payload[:2] == (1003).to_bytes(2, "big"), "bytes to a client that speaks JSON"
        client.connection.sendall(client_frame(CLOSE, close_payload(1003)))
        assert list(client.frames()) == []
