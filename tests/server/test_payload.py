"""What nodes write into the broker, read back; and what nobody of ours wrote, refused."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.payload import (
    AnySignal,
    BroadcastSignal,
    CensusAnswer,
    CensusSignal,
    DirectSignal,
    DisconnectSignal,
    ForgetSignal,
    MembershipSignal,
    Origin,
    ReceiptSignal,
    RecheckSignal,
    SampleSignal,
    TypingSignal,
    WatchSignal,
    decode_message,
    decode_signal,
    encode_message,
    encode_signal,
)

origins = st.builds(Origin, st.text(max_size=20), st.integers(0, 2**53))
signals = st.one_of(
    st.builds(TypingSignal, st.text(), st.booleans(), origins),
    st.builds(ReceiptSignal, st.text(), st.integers(0, 2**53) | st.text(), st.text(), origins),
    st.builds(BroadcastSignal, st.none() | st.text(), st.binary(), st.text(), st.none() | origins),
    st.builds(DirectSignal, st.binary()),
    st.builds(DisconnectSignal, st.integers(1000, 4999), st.text(), st.none() | st.text(), st.none() | st.text()),
    st.builds(RecheckSignal, st.none() | st.text()),
    st.builds(MembershipSignal, st.text(), st.booleans()),
    st.builds(CensusSignal, st.text(), st.text(), st.text(), st.text(), st.integers(0, 500)),
    st.builds(CensusAnswer, st.text(), st.text(), st.lists(st.tuples(st.text(), st.integers(0, 2**53))).map(tuple)),
    st.builds(ForgetSignal, st.text()),
    st.builds(WatchSignal, st.text(), st.integers(0, 3600)),
    st.builds(SampleSignal, st.text(), st.binary()),
)


def test_a_message_is_a_length_a_session_and_a_tail() -> None:
    assert encode_message(b'"user_id":1}') == b'\x00"user_id":1}'
    assert encode_message(b'"user_id":1}', "abc") == b'\x03abc"user_id":1}'


@given(st.binary(min_size=1), st.text(st.characters(codec="ascii"), max_size=64))
def test_messages_round_trip(tail: bytes, session: str) -> None:
    assert decode_message(encode_message(tail, session)) == (session.encode(), tail)


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x05abc", b"\x03abc"])
def test_a_cut_message_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not a message"):
        decode_message(payload)


@given(signals)
def test_signals_round_trip(signal: AnySignal) -> None:
    assert decode_signal(encode_signal(signal)) == signal


@given(st.binary(max_size=64))
def test_foreign_bytes_are_a_value_error(payload: bytes) -> None:
    try:
        decode_signal(payload)
    except ValueError:
        pass


@pytest.mark.parametrize(
    "fields",
    [
        (0, "u", 1, ("n", 1)),  # typing must be a bool
        (0, "u", True, ("n", "1")),  # a connection is a number
        (0, "u", True, ("n",)),
        (0, "u", True),
        (3, "text where bytes belong"),
        (6, "r", 1),  # a member or not
        (8, "q", "n", (("r", "1"),)),  # rooms have numbers
        (8, "q", "n", ("r",)),
        (8, "q", "n", (("r", 1, 2),)),
        (-1, "u", True, ("n", 1)),
        (99,),
    ],
)
def test_wrong_fields_are_refused(fields: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="not a signal"):
        decode_signal(msgpack.packb(fields))
