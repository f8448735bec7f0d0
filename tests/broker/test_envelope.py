"""The bytes on a channel, both ways."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.base import Change, Entry, Probe, Signal
from broker.envelope import VERSION, NewerVersion, decode, encode_signal


@pytest.mark.parametrize(
    ("data", "item"),
    [
        (b"\x01\x92\x00\xa2hi", Signal(b"hi")),
        (b"\x01\x96\x01\xa1e\x07\xa1p\xa1t\xa2hi", Entry(b"e", 7, b"p", b"t", b"hi")),
        (b"\x01\x96\x01\xa1e\xcf\x00\x1f" + b"\xff" * 6 + b"\xa1p\xa1t\xa0", Entry(b"e", 2**53 - 1, b"p", b"t", b"")),
        (b"\x01\x95\x02\xa1e\x03\xa442\xc3\xa9\x01", Change(b"e", 3, "42é", True)),
        (b"\x01\x95\x02\xa1e\x03\xa242\x00", Change(b"e", 3, "42", False)),
        (b"\x01\x92\x03\xa5nonce", Probe(b"nonce")),
        (b"\x00\x92\x00\xa2hi", Signal(b"hi")),  # the version before ours
    ],
)
def test_each_kind_reads_as_what_it_is(data: bytes, item: object) -> None:
    assert decode(data) == item
    assert type(decode(data)) is type(item)


def test_a_signal_is_written_as_these_bytes() -> None:
    assert encode_signal(b"hi") == b"\x01\x92\x00\xa2hi"
    assert encode_signal(b"\xff" * 40) == b"\x01\x92\x00\xda\x00\x28" + b"\xff" * 40


@given(st.binary())
def test_any_payload_comes_back(payload: bytes) -> None:
    assert decode(encode_signal(payload)) == Signal(payload)


@given(st.binary() | st.binary().map(lambda rest: bytes([VERSION]) + rest))
def test_foreign_bytes_are_a_value_error_and_nothing_else(data: bytes) -> None:
    try:
        item = decode(data)
    except ValueError:
        return
    assert isinstance(item, Signal | Entry | Change | Probe)


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()


@given(st.lists(scalars | st.lists(scalars, max_size=3), max_size=8))
def test_arrays_of_wrong_types_are_a_value_error(fields: list[object]) -> None:
    try:
        item = decode(b"\x01" + msgpack.packb(fields, use_bin_type=False))
    except ValueError:
        return
    for name, value in zip(item._fields, item, strict=True):
        kinds = {"offset": int, "version": int, "user": str, "online": bool}
        assert type(value) is kinds.get(name, bytes)


@pytest.mark.parametrize("data", [b"\x02anything", b"\x1f"])
def test_a_newer_version_says_so(data: bytes) -> None:
    with pytest.raises(NewerVersion, match="upgrade this node"):
        decode(data)


@pytest.mark.parametrize("data", [b"", b" ", b"{}", b"*1\r\n", b"\xff"])
def test_text_is_not_taken_for_a_newer_version(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an envelope") as raised:
        decode(data)
    assert not isinstance(raised.value, NewerVersion)
