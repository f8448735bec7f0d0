"""Connections that come and go in every way there is, as fast as blocking sockets can: a process of its own, so that
they cost the test's event loop nothing.

python -m tests.support.churn PORT COUNT ROOMS: each in its turn stays until its join is answered, or leaves earlier.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from pathlib import Path

from tests.support.served import handshake
from tests.support.wires import CLOSE, TEXT, client_frame

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close() sends RST."""
ROOT = Path(__file__).resolve().parents[2]


def visit(port: int, number: int, rooms: int) -> None:
    """One connection: C33's resets at each step of the handshake, a reset or a proper close after the join."""
    way = number % 10
    head = handshake(f"/ws?user=u{number % 500}")
    presence = b"true" if way % 2 else b"false"
    join = client_frame(TEXT, b'{"op":"join","room":"r%d","id":1,"presence":%b}' % (number % rooms, presence))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        if way < 5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if way == 0:
            return  # not a byte
        if way == 1:
            sock.sendall(head[: len(head) // 2])
            return
        if way == 2:
            sock.sendall(head + join)  # gone before the 101
            return
        sock.sendall(head + join)
        answer = b""
        while b'"ok":true' not in answer:
            piece = sock.recv(65536)
            assert piece, answer
            answer += piece
        if way >= 5:
            sock.sendall(client_frame(CLOSE, b"\x03\xe8"))
            while sock.recv(65536):
                pass


def churn(port: int, count: int, rooms: int = 50) -> None:
    """Blocks until all have come and gone; CalledProcessError with their words if one was treated otherwise."""
    command = [sys.executable, "-m", "tests.support.churn", str(port), str(count), str(rooms)]
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    to, total, many = map(int, sys.argv[1:])
    for each in range(total):
        visit(to, each, many)
