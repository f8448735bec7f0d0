"""One WebSocket's bytes: RFC 6455's frame rules as literals, agreement with ``websockets``, bounds, and the end."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from server import closing, frames, inbound, slow, wire
from server.connection import BUSY, CONGESTED, CONGESTED_BYTES, INBOX
from server.frames import Batch, Ephemeral, Prepared, Topic
from server.heartbeat import SLOTS, Heartbeat
from server.inbound import FRAMES_PER_TURN, MAX_FRAGMENTS
from tests.support.frame_rules import CASES, Case
from tests.support.wires import BINARY, CLOSE, CONT, PING, PONG, TEXT, Ear, client_frame, close_payload


def check(case: Case, ear: Ear) -> None:
    assert ear.messages == case.messages
    written = bytes(ear.sent.written)
    assert written.startswith(case.out)
    rest = written[len(case.out) :]
    assert ear.code == case.code
    if case.echo:
        assert not rest
        assert ear.sent.closing and not ear.sent.aborted.is_set()
    elif case.code:
        assert rest[:1] == b"\x88" and rest[1] == len(rest) - 2 <= 125, "one close frame, and nothing after it"
        assert rest[2:4] == case.code.to_bytes(2, "big")
        rest[4:].decode()
        # Half-closed and lingering: a close() with unread input would be a reset.
        assert ear.sent.eof and not ear.sent.closing and ear.sent.reading
    else:
        assert not rest and not ear.sent.closing and ear.sent.reading


def cuts(length: int) -> Iterator[int]:
    """Everywhere in what is short; around headers and at the end of what is long."""
    return iter(range(1, length) if length < 300 else [*range(1, 24), length // 2, *range(length - 8, length)])


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_every_frame_rule_however_the_bytes_arrive(case: Case) -> None:
    ear = Ear()
    ear.hears(case.data)
    check(case, ear)
    for cut in cuts(len(case.data)):
        ear = Ear()
        ear.hears(case.data, cut)
        check(case, ear)
    if len(case.data) < 300:
        ear = Ear()
        ear.hears(case.data, *range(1, len(case.data)))
        check(case, ear)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_every_frame_rule_after_the_bytes_waited_for_a_release(case: Case) -> None:
    ear = Ear()
    ear.hold(BUSY)
    ear.hears(case.data, len(case.data) // 2)
    assert not ear.messages and not ear.sent.written
    ear.release(BUSY)
    check(case, ear)


# Holding and releasing. More of it: test_wire_properties.py.


async def test_a_release_for_one_reason_keeps_the_other() -> None:
    ear = Ear()
    ear.hold(BUSY)
    ear.hold(CONGESTED)
    ear.hears(client_frame(TEXT, b"a"))
    ear.release(BUSY)
    assert not ear.messages and not ear.sent.reading
    ear.release(BUSY)
    assert not ear.messages
    ear.release(CONGESTED)
    assert ear.messages == [(True, b"a")] and ear.sent.reading


# Turns.


async def test_a_chunk_of_tiny_frames_is_read_in_turns() -> None:
    ear = Ear()
    frame = client_frame(TEXT)
    count = 3 * FRAMES_PER_TURN + 5
    ear.hears(frame * count)
    seen = []
    while len(ear.messages) < count:
        seen.append(len(ear.messages))
        assert not ear.sent.reading, "a flood is not read on while it is being worked off"
        await asyncio.sleep(0)
    assert seen == [FRAMES_PER_TURN, 2 * FRAMES_PER_TURN, 3 * FRAMES_PER_TURN]
    assert ear.sent.reading and not ear.held


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG], ids=["text", "binary", "ping", "pong"])
@pytest.mark.parametrize("after", ["open", "closing"])
async def test_no_turn_takes_5_ms_for_256_kib_of_tiny_frames(opcode: int, after: str) -> None:
    frame = client_frame(opcode)

    class Costly(Ear):
        """Handling a request takes 15 µs."""

        def message(self, data: bytes, text: bool) -> None:
            until = time.thread_time() + 15e-6
            while time.thread_time() < until:
                pass

    ear = Costly()
    if after == "closing":
        ear.close(1000)
    turns: list[float] = []
    started = time.thread_time()
    ear.data_received(frame * (262144 // len(frame)))
    while True:
        turns.append(time.thread_time() - started)
        if not ear._rest:
            break
        started = time.thread_time()
        ear.release(inbound.TURN)  # what the loop was asked to call
    turns.sort()
    assert len(turns) > 300, "no turn takes more than its share"
    assert turns[-4] < 0.005, f"{turns[-4] * 1000:.1f} ms"  # but for a few in which the machine itself was away
    ear.connection_lost(None)


async def test_a_chunk_held_after_every_message_is_not_copied_each_time() -> None:
    """43,690 tiny requests in one chunk, each waiting for Redis: 6 GB if the rest were copied every time."""
    ear = Ear()
    ear.holding = BUSY
    frame = client_frame(TEXT)
    count = 262144 // len(frame)
    ear.hears(frame * count)
    moved = 0
    while len(ear.messages) < count:
        before = ear._rest
        ear.release(BUSY)
        moved += ear._rest is not before
    assert moved == 1, "the very same buffer, until nothing is left of it"


# What a peer can make us keep.


@contextmanager
def growth(limit: int) -> Iterator[None]:
    """At most so many bytes of Python objects more at the end, and at any time twice that."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        gc.collect()
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now < limit and peak < 2 * limit + 1_000_000, (now, peak)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_empty_fragments_without_end_fail_the_connection(opcode: int) -> None:
    ear = Ear()
    ear.hears(client_frame(opcode, fin=False))
    for _ in range(MAX_FRAGMENTS - 2):
        ear.hears(client_frame(CONT, fin=False))
    assert not ear.closed
    ear.hears(client_frame(CONT, fin=False))
    assert ear.code == closing.POLICY
    assert ear.sent.written.startswith(frames.close_frame(closing.POLICY)[:1])
    with growth(20_000):
        for _ in range(1000):
            ear.hears(client_frame(CONT, fin=False) * 100)


async def test_a_message_in_as_many_fragments_as_allowed_arrives() -> None:
    ear = Ear()
    ear.hears(client_frame(TEXT, b"a", fin=False))
    for index in range(MAX_FRAGMENTS - 1):
        ear.hears(client_frame(CONT, b"a", fin=index == MAX_FRAGMENTS - 2))
    assert ear.messages == [(True, b"a" * MAX_FRAGMENTS)]


async def test_a_fragment_too_large_fails_at_its_header() -> None:
    ear = Ear()
    ear.hears(client_frame(BINARY, b"x" * 65535, fin=False))
    ear.hears(client_frame(CONT, b"x" * 65535)[:4])
    assert ear.code == closing.TOO_BIG


async def test_no_pong_is_written_while_the_peer_owes_us_reading() -> None:
    ear = Ear()
    ear.hears(client_frame(PING, b"1"))
    ear.sent.owed = CONGESTED_BYTES + 1
    ear.hears(client_frame(PING, b"2") + client_frame(TEXT, b"a", fin=False) + client_frame(PING, b"3"))
    assert ear.sent.written == frames.pong_frame(b"1")
    ear.sent.owed = 0
    ear.hears(client_frame(PING, b"4"))
    assert ear.sent.written == frames.pong_frame(b"1") + frames.pong_frame(b"4")


async def test_a_flood_after_our_close_is_not_kept() -> None:
    """Not even if the transport says only now that the peer does not read."""
    ear = Ear()
    ear.close(4002)
    ear.pause_writing()
    with growth(100_000):
        for _ in range(50):
            ear.hears(client_frame(TEXT, b"x" * 60_000))
    assert not ear.messages
    ear.hears(client_frame(CLOSE, close_payload(4002)))
    assert ear.sent.closing


async def test_the_answer_to_our_close_is_read_whoever_holds() -> None:
    ear = Ear()
    ear.hold(INBOX)
    ear.close(4002)
    ear.hold(BUSY)
    assert ear.sent.reading
    ear.hears(client_frame(TEXT, b"x") + client_frame(CLOSE, close_payload(4002)))
    assert ear.sent.closing and not ear.messages


async def test_a_flood_after_a_failure_is_not_kept_nor_read() -> None:
    ear = Ear()
    ear.hears(client_frame(3))
    with growth(100_000):
        for _ in range(50):
            ear.hears(client_frame(TEXT, b"x" * 60_000)[:-1])
    ear.hears(client_frame(CLOSE))
    assert not ear.sent.closing, "§7.1.7: nothing of the peer counts any more"
    ear.connection_lost(None)
    assert ear.end == (1002, "")


async def test_what_follows_a_message_that_failed_the_connection_does_not_count() -> None:
    class Strict(Ear):
        def message(self, data: bytes, text: bool) -> None:
            super().message(data, text)
            self.fail(closing.INVALID_DATA, "not UTF-8")

    ear = Strict()
    ear.hears(
        client_frame(TEXT, b"\xff") + client_frame(CLOSE) + client_frame(TEXT, b"x") + client_frame(TEXT, b"y")[:3]
    )
    assert ear.messages == [(True, b"\xff")] and not ear._rest
    assert ear.sent.eof and not ear.sent.closing, "lingering, lest a reset overtakes the close frame"
    assert ear.sent.written == frames.close_frame(closing.INVALID_DATA, "not UTF-8")
    ear.connection_lost(None)


# Deadlines.


@pytest.fixture
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CLOSE_TIMEOUT_S", 0.03)
    monkeypatch.setattr(wire, "STALL_S", 0.03)
    monkeypatch.setattr(inbound, "ASSEMBLY_S", 0.03)
    for module in (wire, inbound):
        monkeypatch.setattr(module, "SECOND_LOOK_S", 0.02)


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(30):
        await event.wait()


def test_the_times_are_those_of_the_design() -> None:
    assert (wire.CLOSE_TIMEOUT_S, slow.STALL_S, inbound.ASSEMBLY_S, inbound.SECOND_LOOK_S) == (10.0, 10.0, 15.0, 1.0)


async def test_a_consumer_over_its_limit_gets_4008_and_is_aborted_in_time(short_times: None) -> None:
    ear = Ear(outbound_limit=1000)
    batch = Batch([Prepared(b"x" * 5000)])
    ear.sent.owed = 1000
    ear.pause_writing()  # as a transport says when its buffer fills
    ear.send(batch)
    assert ear.sent.written == batch.frames and not ear.closed, "what one tick brings is always taken"
    ear.sent.owed = 1001
    ear.send(batch)
    ear.send(batch)
    ear.send_event(b"{}")
    assert ear.code == closing.SLOW
    last = bytes(ear.sent.written[len(batch.frames) :])
    assert last == frames.close_frame(closing.SLOW, "too slow a reader: reconnect and resume")
    await soon(ear.sent.aborted)


async def test_replies_count_against_the_limit_too() -> None:
    ear = Ear(outbound_limit=1000)
    ear.sent.owed = 1000
    ear.send_event(b"{}")
    assert not ear.closed
    ear.sent.owed = 1001
    ear.send_event(b"{}")
    assert ear.code == closing.SLOW
    ear.connection_lost(None)


@pytest.mark.parametrize("packed", [False, True])
async def test_events_and_batches_are_written_as_the_client_wants_them(packed: bool) -> None:
    ear = Ear()
    ear.packed = packed
    ear.send_event(b'{"a":1}')
    ear.send(Batch([Prepared(b'{"a":1}'), Prepared(b'{"a":1}')]))
    one = b"\x82\x04\x81\xa1a\x01" if packed else b'\x81\x07{"a":1}'
    assert ear.sent.written == one * 3
    assert ear.sent.writes == 2


async def test_a_peer_that_never_answers_our_close_is_aborted(short_times: None) -> None:
    ear = Ear()
    ear.close(1000)
    ear.close(1001)
    assert ear.sent.written == b"\x88\x02\x03\xe8"
    await soon(ear.sent.aborted)


async def test_a_peer_that_answers_is_not_aborted_later(short_times: None) -> None:
    ear = Ear()
    ear.close(1000)
    ear.hears(client_frame(CLOSE, close_payload(1000)))
    assert ear.sent.closing
    ear.connection_lost(None)
    assert ear._deadline is None and ear.end == (1000, "")
    assert not [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]


async def test_a_peer_that_closes_but_does_not_read_our_answer_is_aborted(short_times: None) -> None:
    ear = Ear()
    ear.hears(client_frame(CLOSE, close_payload(1001, b"bye")))
    assert ear.sent.closing
    await soon(ear.sent.aborted)
    ear.connection_lost(None)
    assert ear.end == (1001, "bye")


async def test_a_peer_that_fails_is_lingered_for_and_then_aborted(short_times: None) -> None:
    ear = Ear()
    ear.hears(client_frame(3))
    assert ear.sent.eof and not ear.sent.closing
    await soon(ear.sent.aborted)


async def test_a_half_closed_peer_that_reads_nothing_is_aborted(short_times: None) -> None:
    ear = Ear()
    assert not ear.eof_received(), "the transport closes once the peer has what it is owed"
    await soon(ear.sent.aborted)
    ear.connection_lost(None)
    assert ear.end == (1006, "")


async def test_a_half_closed_peer_that_was_closed_keeps_its_code() -> None:
    ear = Ear()
    ear.close(4004)
    ear.eof_received()
    ear.connection_lost(None)
    assert ear.end == (4004, "")


async def test_a_stalled_peer_is_aborted_with_4008(short_times: None) -> None:
    ear = Ear()
    ear.pause_writing()
    assert not ear.sent.reading, "who does not read is not read"
    await soon(ear.sent.aborted)
    ear.connection_lost(None)
    assert ear.end == (closing.SLOW, "")


async def test_a_slow_close_gives_a_stalled_peer_no_second_time_to_read_in() -> None:
    ear = Ear(outbound_limit=1000)
    ear.pause_writing()
    stalled = ear._deadline
    ear.sent.owed = 1001
    ear.send(Batch([Prepared(b"x")]))
    assert ear.code == closing.SLOW and ear._deadline is stalled and stalled is not None and not stalled.cancelled()
    ear._cut()
    assert ear.sent.aborted.is_set()
    ear.connection_lost(None)


def typing(user: str) -> Ephemeral:
    return Ephemeral(b'"%b"' % user.encode(), Topic("typing", "r", user))


@pytest.mark.parametrize("packed", [False, True])
async def test_what_gave_way_comes_in_one_write_when_the_peer_has_caught_up(packed: bool) -> None:
    ear = Ear(outbound_limit=1000)
    ear.packed = packed
    ear.pause_writing()
    ear.sent.owed = 5000
    for user in ("a", "b", "a"):
        ear.send(Batch([typing(user)]))
    assert not ear.closed and not ear.sent.written, "only messages close it"
    ear.sent.owed = 900
    ear.send(Batch([typing("c"), Prepared(b"1"), typing("d")]))
    assert bytes(ear.sent.written) == (b"\x82\x01\x01" if packed else b"\x81\x011")
    ear.sent.written.clear()
    ear.sent.owed = 0
    ear.resume_writing()
    expected = [b"\x82\x02\xa1%c" % c if packed else b'\x81\x03"%c"' % c for c in b"bacd"]
    assert (bytes(ear.sent.written), ear.sent.writes) == (b"".join(expected), 2)
    assert ear.backlog is None and not ear.held


async def test_what_gave_way_waits_on_while_the_peer_is_congested_again() -> None:
    class Answering(Ear):
        def message(self, data: bytes, text: bool) -> None:
            self.pause_writing()

    ear = Answering()
    ear.pause_writing()
    ear.send(Batch([typing("a")]))
    ear.hears(client_frame(TEXT, b"its answer fills the buffer"))
    ear.resume_writing()
    assert ear.held & CONGESTED and not ear.sent.written and ear.backlog is not None
    ear.connection_lost(None)
    assert ear.backlog is None


async def test_a_buffer_that_fills_with_what_gave_way_is_congested() -> None:
    ear = Ear()
    ear.pause_writing()
    ear.send(Batch([typing("a")]))
    ear.sent.write = lambda data: ear.pause_writing()  # type: ignore[method-assign]
    ear.resume_writing()
    assert ear.held & CONGESTED and ear._deadline is not None
    ear.connection_lost(None)


async def test_a_peer_that_reads_on_is_not_stalled(short_times: None) -> None:
    ear = Ear()
    ear.pause_writing()
    ear.resume_writing()
    assert ear._deadline is None and ear.sent.reading


async def test_a_frozen_node_looks_again_before_it_cuts_a_reader() -> None:
    """The timer fires at once after a freeze; the transport writes what waited, and tells so, a moment later."""
    ear = Ear()
    ear.pause_writing()
    first = ear._deadline
    ear._look_again()
    second = ear._deadline
    assert not ear.closed and second is not None and second is not first
    ear.resume_writing()
    assert second.cancelled() and not ear.closed


TRICKLES = {
    "half a frame": client_frame(TEXT, b"x" * 1000)[:500],
    "half a header": client_frame(TEXT, b"x" * 1000)[:1],
    "half a ping": client_frame(PING, b"x")[:3],
    "a fragment": client_frame(TEXT, b"x", fin=False),
    "half a frame after a message": client_frame(TEXT, b"x") + client_frame(TEXT, b"x")[:3],
}


@pytest.mark.parametrize("data", TRICKLES.values(), ids=TRICKLES)
async def test_a_message_that_does_not_end_fails_the_connection(data: bytes, short_times: None) -> None:
    ear = Ear()
    ear.hears(data)
    await soon(ear.sent.aborted)
    assert ear.code == closing.POLICY
    close = frames.close_frame(closing.POLICY, "a message must arrive within 0.03 s")
    assert ear.sent.written == close and ear.sent.eof


async def test_trickled_bytes_do_not_prolong_a_message() -> None:
    ear = Ear()
    frame = client_frame(TEXT, b"x" * 100)
    ear.hears(frame[:10])
    timer = ear._overdue
    for index in range(10, 50):
        ear.hears(frame[index : index + 1])
    ear.hears(client_frame(TEXT, b"x" * 100)[50:])
    assert timer is not None and timer.cancelled() and ear._overdue is None


async def test_control_frames_do_not_prolong_a_message() -> None:
    ear = Ear()
    ear.hears(client_frame(TEXT, b"x", fin=False))
    timer = ear._overdue
    for _ in range(3):
        ear.hears(client_frame(PING))
        ear.hears(client_frame(CONT, b"x", fin=False))
    assert timer is not None and ear._overdue is timer and not timer.cancelled()


@pytest.mark.parametrize(
    "message",
    [client_frame(TEXT, b"x" * 200), client_frame(TEXT, b"x", fin=False) + client_frame(CONT, b"y" * 99)],
    ids=["whole", "fragments"],
)
async def test_every_message_has_its_own_time_though_all_reads_end_within_one(message: bytes) -> None:
    ear = Ear()
    stream, length = message * 3, len(message)
    ear.hears(stream[: length - 10])
    first = ear._overdue
    ear.hears(stream[length - 10 : 2 * length - 10])
    second = ear._overdue
    assert first is not None and first.cancelled()
    assert second is not None and second is not first
    ear.hears(stream[2 * length - 10 :])
    assert second.cancelled() and len(ear.messages) == 3
    ear.connection_lost(None)


async def test_the_time_of_a_message_does_not_run_against_a_peer_whom_nobody_reads() -> None:
    ear = Ear()
    frame = client_frame(TEXT, b"x" * 100)
    ear.hears(frame[:10])
    ear.hold(BUSY)
    for sure in (False, True):
        ear._message_overdue(sure)
        assert not ear.closed
    ear.release(BUSY)
    ear._message_overdue(False)
    assert not ear.closed, "what came meanwhile has not been read yet"
    ear.hears(frame[10:])
    assert ear.messages == [(True, b"x" * 100)]
    ear.connection_lost(None)


# The beat.


async def test_a_silent_peer_is_aborted_at_the_beat_after_an_unanswered_ping() -> None:
    ear = Ear()
    ear.beat(False)
    assert ear.sent.written == frames.PING
    ear.beat(False)
    assert ear.sent.aborted.is_set()
    ear.connection_lost(None)
    assert ear.end == (1006, "")


@pytest.mark.parametrize("data", [client_frame(PONG), client_frame(TEXT, b"x"), client_frame(TEXT, b"x")[:1]])
async def test_any_byte_is_an_answer(data: bytes) -> None:
    ear = Ear()
    for _ in range(3):
        ear.beat(False)
        ear.hears(data)
    assert not ear.sent.aborted.is_set()
    ear.connection_lost(None)


async def test_who_is_not_read_is_not_silent() -> None:
    ear = Ear()
    ear.beat(False)
    ear.hold(BUSY)
    ear.beat(False)
    ear.release(BUSY)  # its answers lie unread in the socket
    ear.beat(False)
    assert not ear.sent.aborted.is_set()
    ear.beat(False)
    assert ear.sent.aborted.is_set()


async def test_a_congested_peer_gets_no_pings() -> None:
    ear = Ear()
    ear.pause_writing()
    ear.beat(False)
    ear.beat(False)
    assert not ear.sent.written and not ear.sent.aborted.is_set()
    ear.connection_lost(None)


async def test_a_forgiven_round_cuts_nobody_and_the_next_one_does() -> None:
    ear = Ear()
    ear.beat(False)
    ear.beat(True)
    assert not ear.sent.aborted.is_set()
    ear.beat(False)
    assert ear.sent.aborted.is_set()


async def test_a_closing_peer_is_not_pinged() -> None:
    ear = Ear()
    ear.close(1000)
    written = bytes(ear.sent.written)
    ear.beat(False)
    ear.beat(False)
    assert ear.sent.written == written and not ear.sent.aborted.is_set()
    ear.connection_lost(None)


async def test_the_wheel_has_a_connection_from_its_opening_to_its_end() -> None:
    wheel = Heartbeat(10.0)
    ear = Ear(wheel=wheel)
    ear.open()
    for _ in range(SLOTS):
        wheel.turn(late=False)
    assert ear.sent.written == frames.PING
    ear.connection_lost(None)
    for _ in range(SLOTS):
        wheel.turn(late=False)
    assert ear.sent.written == frames.PING and ear.end == (1006, "")
