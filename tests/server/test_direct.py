"""Who may be written to without being asked: the node's table says of each connection what it says itself."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from server import frames
from server.connection import BUSY, CONGESTED, Connection, Listener
from server.frames import Batch, Prepared
from server.roll import Roll
from tests.support.wires import CLOSE, PING, TEXT, Ear, client_frame, close_payload


class Table(Roll, Listener):
    """What a hub does with it, and nothing else."""

    def __init__(self) -> None:
        super().__init__("n")

    def dropped(self, connection: Connection, kind: str, events: int) -> None:
        pass

    def cut(self, connection: Connection, why: str) -> None:
        pass


def entered(packed: bool = False) -> tuple[Table, Ear]:
    table, ear = Table(), Ear(outbound_limit=1000)
    ear.packed = packed
    ear.listener = table
    table.enter(ear)
    return table, ear


def over_its_limit(ear: Ear) -> None:
    ear.sent.owed = ear.outbound_limit + 1
    ear.send(Batch([Prepared(b"{}")]))
    ear.send_event(b"{}")
    ear.sent.owed = 0


STEPS = {
    "the kernel takes no more": Ear.pause_writing,
    "it does again": Ear.resume_writing,
    "a request": lambda ear: ear.hears(client_frame(TEXT, b"{}")),
    "a request waits": lambda ear: ear.hold(BUSY),
    "it has ended": lambda ear: ear.release(BUSY),
    "a ping": lambda ear: ear.hears(client_frame(PING)),
    "a bad frame": lambda ear: ear.hears(client_frame(TEXT, b"{}", rsv=1)),
    "the peer closes": lambda ear: ear.hears(client_frame(CLOSE, close_payload(1000))),
    "we close": lambda ear: ear.close(1001),
    "we fail it": lambda ear: ear.fail(1008, "so"),
    "a beat": lambda ear: ear.beat(False),
    "the peer half-closes": Ear.eof_received,
    "over the limit": over_its_limit,
    "stalled": Ear._look_again,
    "cut": Ear._cut,
}


@given(st.booleans(), st.lists(st.sampled_from(list(STEPS)), max_size=12))
def test_the_table_knows_at_any_time(packed: bool, names: list[str]) -> None:
    async def run() -> None:
        table, ear = entered(packed)
        for name in ("entered", *names):
            if name in STEPS:
                STEPS[name](ear)
            assert (ear in table.indirect) is not ear.direct, name
            assert ear.direct is not (ear.closed or packed or ear.held & CONGESTED != 0), name
        table.strike(ear)
        assert not table.indirect, "nothing is kept of one that has gone"
        for timer in (ear._deadline, ear._overdue):
            if timer is not None:
                timer.cancel()

    asyncio.run(run())


async def test_only_a_direct_one_is_written_to() -> None:
    """What ``send`` would write is what may be written without it."""
    _, ear = entered()
    batch = Batch([Prepared(b'{"op":"a"}'), Prepared(b'{"op":"b"}')])
    ear.send(batch)
    assert ear.direct and ear.sent.written == batch.frames
    assert batch.frames == frames.text_frame(b'{"op":"a"}') + frames.text_frame(b'{"op":"b"}')
