"""One WebSocket's bytes, drawn by chance: agreement with ``websockets``, and holding and releasing."""

from __future__ import annotations

import asyncio
import os
import random
import struct
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from websockets.frames import Opcode
from websockets.protocol import OPEN, SERVER, Protocol

from server.connection import BUSY, CONGESTED, INBOX
from tests.support.wires import BINARY, CLOSE, CONT, PING, PONG, TEXT, Ear, client_frame, close_payload

# Agreement with the library.


def repeated(unit: bytes, size: int) -> bytes:
    return (unit * (size // len(unit) + 1))[:size]


def spelled_out(payload: bytes, form: str, mask: bytes) -> bytes:
    """A text frame whose length has 16 or 64 bits, however short it is."""
    if form == "!H":
        payload = payload[:65535]
        return b"\x81\xfe" + struct.pack(form, len(payload)) + mask + payload
    return b"\x81\xff" + struct.pack(form, len(payload)) + mask + payload


def streams_of(payloads: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Whole frames first, then some that break one rule or another."""
    masks = st.binary(min_size=4, max_size=4)
    closes = st.builds(
        close_payload,
        st.one_of(st.integers(0, 65535), st.sampled_from([1000, 1001, 3000, 4999])),
        st.one_of(st.just(b""), st.binary(max_size=5), st.text(max_size=5).map(str.encode)),
    )
    good = st.one_of(
        st.builds(client_frame, st.sampled_from([TEXT, BINARY]), payloads, mask=masks),
        st.builds(client_frame, st.sampled_from([PING, PONG]), st.binary(max_size=125), mask=masks),
        st.lists(payloads, min_size=2, max_size=4).map(
            lambda parts: b"".join(
                client_frame(CONT if index else TEXT, part, fin=index == len(parts) - 1)
                for index, part in enumerate(parts)
            )
        ),
    )
    odd = st.one_of(
        st.builds(
            client_frame,
            st.integers(0, 15),
            payloads,
            fin=st.booleans(),
            rsv=st.sampled_from([0, 0, 0, 1, 4]),
            mask=masks,
        ),
        st.builds(client_frame, st.just(CLOSE), closes, mask=masks),
        st.builds(client_frame, st.sampled_from([CONT, TEXT]), payloads, fin=st.just(False)),
        st.builds(spelled_out, payloads, st.sampled_from(["!H", "!Q"]), masks),
        st.binary(max_size=20),
    )
    return st.builds(
        lambda begin, end: b"".join(begin + end), st.lists(good, max_size=6), st.lists(st.one_of(good, odd), max_size=5)
    )


class World(NamedTuple):
    max_message: int
    streams: st.SearchStrategy[bytes]


SMALL = World(
    1024,
    streams_of(
        st.one_of(st.binary(max_size=8), st.binary(min_size=120, max_size=135), st.binary(min_size=995, max_size=1030))
    ),
)
"""Around the lengths that need another form, and the largest message."""
LARGE = World(
    65536,
    streams_of(
        st.builds(
            repeated,
            st.binary(min_size=1, max_size=8),
            st.one_of(st.sampled_from([0, 125, 126, 127, 65_535, 65_536, 65_537]), st.integers(0, 65_600)),
        )
    ),
)
"""The same as nodes are set up: up to the 64 KiB that are read inline, and beyond."""
WORLDS = pytest.mark.parametrize("world", [SMALL, LARGE], ids=["1 KiB", "64 KiB"])
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of a stream that fails


class Model:
    """What the library does with a whole stream."""

    def __init__(self, data: bytes, max_message: int) -> None:
        protocol = Protocol(SERVER, state=OPEN, max_size=max_message)
        protocol.receive_data(data)
        self.written = b"".join(protocol.data_to_send())
        self.messages: list[tuple[bool, bytes]] = []
        parts: list[bytes] = []
        text = False
        for event in protocol.events_received():
            opcode, fin = event.opcode, event.fin  # type: ignore[union-attr]
            if opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                if opcode is not Opcode.CONT:
                    parts, text = [], opcode is Opcode.TEXT
                parts.append(bytes(event.data))  # type: ignore[union-attr]
                if fin:
                    self.messages.append((text, b"".join(parts)))
        if protocol.parser_exc is not None:
            assert protocol.close_sent is not None
            self.code: int = protocol.close_sent.code
        else:
            self.code = protocol.close_rcvd.code if protocol.close_rcvd is not None else 0


def agree(world: World, examples: int, number: int) -> None:
    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(world.streams, st.data())
    def run(stream: bytes, data: st.DataObject) -> None:
        places = st.lists(st.integers(0, len(stream)), max_size=8, unique=True).map(sorted)
        cut_at = data.draw(places, "cuts")
        model = Model(stream, world.max_message)

        async def scenario() -> None:
            ear = Ear(max_message=world.max_message)
            ear.hears(stream, *cut_at)
            assert ear.messages == model.messages
            assert bytes(ear.sent.written) == model.written
            assert ear.code == model.code

        asyncio.run(scenario())

    print(f"seed {number}: repeat with ROOMCAST_SEED={number}")
    run()


def a_number() -> int:
    return int(os.environ.get("ROOMCAST_SEED") or random.randrange(2**32))


@WORLDS
def test_the_inline_path_and_the_library_agree_in_everything(world: World) -> None:
    agree(world, 300, a_number())


@pytest.mark.slow
@pytest.mark.timeout(1800)
@WORLDS
def test_they_agree_in_many_more_streams(world: World) -> None:
    agree(world, 50_000, a_number())


# Holding and releasing.

actions = st.one_of(
    st.tuples(st.just("arrive"), st.integers(1, 700)),
    st.tuples(st.sampled_from(["hold", "release"]), st.sampled_from([BUSY, CONGESTED, INBOX])),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=300), st.lists(actions, max_size=40), st.integers(1, 5))
def test_holding_and_releasing_loses_and_reorders_nothing(
    payloads: list[bytes], steps: list[tuple[str, int]], hold_every: int
) -> None:
    """The hub holds at every ``hold_every``-th message; the peer and the transport do as ``steps`` say."""
    stream = b"".join(client_frame(TEXT if index % 3 else BINARY, each) for index, each in enumerate(payloads))

    async def scenario() -> None:
        ear = Ear()
        ear.holding, ear.hold_every = BUSY, hold_every
        left = stream

        def arrive(size: int) -> None:
            nonlocal left
            before, held = len(ear.messages), ear.held
            piece, left = left[:size], left[size:]
            ear.data_received(piece)
            assert not held or len(ear.messages) == before

        for step, value in steps:
            if step == "arrive":
                arrive(value)  # even while held: what a transport had read already may still come
            elif step == "hold":
                ear.hold(value)
            else:
                ear.release(value)
            assert ear.sent.reading == (ear.held == 0)
        while left or ear.held or ear._rest:
            for why in (BUSY, CONGESTED, INBOX):
                ear.release(why)
            await asyncio.sleep(0)
            if ear.sent.reading:
                arrive(100)
        assert ear.messages == [(bool(index % 3), each) for index, each in enumerate(payloads)]

    asyncio.run(scenario())
