"""RFC 6455's frame rules as literals: what a client sends, and what must become of it. Used without sockets in
tests/server/test_wire.py, and over real ones, nginx between them or not, in tests/system/test_conformance.py."""

from __future__ import annotations

from typing import NamedTuple

NO_MASK = b"\0\0\0\0"
"""A mask of zeros leaves the payload readable in the literals below."""


class Case(NamedTuple):
    name: str
    data: bytes
    messages: list[tuple[bool, bytes]] = []  # noqa: RUF012 - a default of a tuple's field, never changed
    out: bytes = b""
    """What is written before any close frame of our own making."""
    code: int = 0
    """The close code of the frame that is written, or, with ``echo``, with which the connection ends."""
    echo: bool = False
    """The peer closed: ``out`` is the whole answer."""


T, B = True, False
CASES = [
    # RFC 6455 §5.7, the examples a server may get.
    Case("a masked text", bytes.fromhex("818537fa213d7f9f4d5158"), [(T, b"Hello")]),
    Case("a masked pong", bytes.fromhex("8a8537fa213d7f9f4d5158")),
    Case("a masked ping", bytes.fromhex("898537fa213d7f9f4d5158"), out=bytes.fromhex("8a0548656c6c6f")),
    Case("an empty text", b"\x81\x80" + NO_MASK, [(T, b"")]),
    Case("an empty binary", b"\x82\x80" + NO_MASK, [(B, b"")]),
    Case("two in one read", (b"\x81\x81" + NO_MASK + b"a") + (b"\x82\x81" + NO_MASK + b"b"), [(T, b"a"), (B, b"b")]),
    # §5.2 lengths.
    Case("125 bytes, the longest short one", b"\x81\xfd" + NO_MASK + b"x" * 125, [(T, b"x" * 125)]),
    Case("126 bytes, the shortest medium one", b"\x81\xfe\x00\x7e" + NO_MASK + b"x" * 126, [(T, b"x" * 126)]),
    Case("65,535 bytes", b"\x81\xfe\xff\xff" + NO_MASK + b"x" * 65535, [(T, b"x" * 65535)]),
    Case(
        "65,536 bytes, the most",
        b"\x82\xff\0\0\0\0\0\x01\0\0" + NO_MASK + b"x" * 65536,
        [(B, b"x" * 65536)],
    ),
    Case("one byte too many", b"\x82\xff\0\0\0\0\0\x01\0\x01" + NO_MASK, code=1009),
    Case("2^63 - 1 bytes", b"\x81\xff\x7f" + b"\xff" * 7 + NO_MASK, code=1009),
    Case("2^63 bytes: the forbidden bit", b"\x81\xff\x80" + b"\0" * 7 + NO_MASK, code=1009),
    Case("2^64 - 1 bytes", b"\x81\xff" + b"\xff" * 8 + NO_MASK, code=1009),
    Case("16 bits for 5 bytes: tolerated", b"\x81\xfe\x00\x05" + NO_MASK + b"Hello", [(T, b"Hello")]),
    Case("64 bits for 5 bytes: tolerated", b"\x81\xff" + b"\0" * 7 + b"\x05" + NO_MASK + b"Hello", [(T, b"Hello")]),
    # §5.1 and §5.2: mask, reserved bits, opcodes.
    Case("an unmasked text", b"\x81\x05Hello", code=1002),
    Case("an unmasked ping", b"\x89\x00", code=1002),
    Case("an unmasked close", b"\x88\x02\x03\xe8", code=1002),
    *(Case(f"reserved bit {bit:#x}", bytes([0x81 | bit, 0x81]) + NO_MASK + b"a", code=1002) for bit in (16, 32, 64)),
    Case("a reserved bit on a ping", b"\xc9\x80" + NO_MASK, code=1002),
    *(
        Case(f"opcode {opcode}", bytes([0x80 | opcode, 0x80]) + NO_MASK, code=1002)
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    ),
    # §5.4 fragments.
    Case("two fragments", b"\x01\x83" + NO_MASK + b"Hel" + b"\x80\x82" + NO_MASK + b"lo", [(T, b"Hello")]),
    Case(
        "empty fragments around",
        b"\x02\x80" + NO_MASK + b"\x00\x81" + NO_MASK + b"a" + b"\x80\x80" + NO_MASK,
        [(B, b"a")],
    ),
    Case(
        "a code point cut by a fragment",
        b"\x01\x81" + NO_MASK + b"\xc3" + b"\x80\x81" + NO_MASK + b"\xa9",
        [(T, b"\xc3\xa9")],
    ),
    Case(
        "ping and pong between fragments",
        b"\x01\x81"
        + NO_MASK
        + b"a"
        + b"\x89\x81"
        + NO_MASK
        + b"?"
        + b"\x8a\x80"
        + NO_MASK
        + b"\x80\x81"
        + NO_MASK
        + b"b",
        [(T, b"ab")],
        out=b"\x8a\x01?",
    ),
    Case(
        "one message after the other, both in fragments",
        2 * (b"\x01\x81" + NO_MASK + b"a" + b"\x80\x81" + NO_MASK + b"b"),
        [(T, b"ab"), (T, b"ab")],
    ),
    Case("a continuation of nothing", b"\x80\x81" + NO_MASK + b"a", code=1002),
    Case("an unfinished continuation of nothing", b"\x00\x80" + NO_MASK, code=1002),
    Case("a text within a message", b"\x01\x81" + NO_MASK + b"a" + b"\x81\x81" + NO_MASK + b"b", code=1002),
    Case("a binary within a message", b"\x01\x81" + NO_MASK + b"a" + b"\x02\x81" + NO_MASK + b"b", code=1002),
    Case("a close within a message", b"\x01\x81" + NO_MASK + b"a" + b"\x88\x80" + NO_MASK, code=1002),
    Case(
        "fragments of 65,537 bytes in all",
        b"\x02\xfe\xff\xff" + NO_MASK + b"x" * 65535 + b"\x80\x82" + NO_MASK + b"xx",
        code=1009,
    ),
    # §5.5 control frames.
    Case("an empty ping", b"\x89\x80" + NO_MASK, out=b"\x8a\x00"),
    Case("the longest ping", b"\x89\xfd" + NO_MASK + b"p" * 125, out=b"\x8a\x7d" + b"p" * 125),
    Case("a ping too long", b"\x89\xfe\x00\x7e" + NO_MASK + b"p" * 126, code=1002),
    Case("a pong too long", b"\x8a\xfe\x00\x7e" + NO_MASK + b"p" * 126, code=1002),
    Case("a close too long", b"\x88\xfe\x00\x7e" + NO_MASK + b"\x03\xe8" + b"p" * 124, code=1002),
    Case("a ping in fragments", b"\x09\x80" + NO_MASK, code=1002),
    Case("a close in fragments", b"\x08\x80" + NO_MASK, code=1002),
    # §5.5.1 and §7.4: closing.
    Case("a close without a code", b"\x88\x80" + NO_MASK, out=b"\x88\x00", code=1005, echo=True),
    *(
        Case(
            f"a close with {code}",
            b"\x88\x82" + NO_MASK + code.to_bytes(2, "big"),
            out=b"\x88\x02" + code.to_bytes(2, "big"),
            code=code,
            echo=True,
        )
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
    ),
    *(
        Case(f"a close with {code}", b"\x88\x82" + NO_MASK + code.to_bytes(2, "big"), code=1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    ),
    Case("a close of one byte", b"\x88\x81" + NO_MASK + b"\x03", code=1002),
    Case(
        "a close with the longest reason",
        b"\x88\xfd" + NO_MASK + b"\x03\xe8" + b"r" * 123,
        out=b"\x88\x7d\x03\xe8" + b"r" * 123,
        code=1000,
        echo=True,
    ),
    Case("a reason that is not UTF-8", b"\x88\x84" + NO_MASK + b"\x03\xe8\xc3\x28", code=1007),
    Case(
        "data after a close",
        b"\x81\x81" + NO_MASK + b"a" + b"\x88\x80" + NO_MASK + b"\x81\x81" + NO_MASK + b"b" + b"\x89\x80" + NO_MASK,
        [(T, b"a")],
        out=b"\x88\x00",
        code=1005,
        echo=True,
    ),
    Case(
        "all that after a failure",
        b"\x83\x80" + NO_MASK + b"\x81\x81" + NO_MASK + b"b" + b"\x89\x80" + NO_MASK + b"\x88\x80" + NO_MASK,
        code=1002,
    ),
]
