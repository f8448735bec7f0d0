"""Which JSON is stored and relayed, and that the quick tests for it never miss what a slow reference finds."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server import jsontext


def encode(source: bytes) -> bytes:
    return jsontext.encode(orjson.loads(source), source)


@pytest.mark.parametrize(
    ("source", "stored"),
    [
        (b"null", b"null"),
        (b" { } ", b"{}"),
        (b'{"a":1,"b":2,"a":3}', b'{"a":3,"b":2}'),
        (b'{"a": [1, 2.50, "x"]}', b'{"a":[1,2.5,"x"]}'),
        (b'"\\u00e9\\/"', '"é/"'.encode()),
        (b'"\\ud83d\\ude00"', '"😀"'.encode()),
        (b'"\\u0000"', b'"\\u0000"'),
        (b"9223372036854775807", b"9223372036854775807"),
        (b"18446744073709551615", b"18446744073709551615"),
        (b"-9223372036854775808", b"-9223372036854775808"),
        (b"1e30", b"1e+30"),
        (b"0.1234567890123456789012345", b"0.12345678901234568"),
        (b"1.0", b"1.0"),
        (b'"1000000000000000000000000000000"', b'"1000000000000000000000000000000"'),
        (b'"\\"1000000000000000000000000000000"', b'"\\"1000000000000000000000000000000"'),
        (b'{"100000000000000000000000000":1}', b'{"100000000000000000000000000":1}'),
        (b"[" * 32 + b"]" * 32, b"[" * 32 + b"]" * 32),
        (b'{"a":' * 32 + b"1" + b"}" * 32, b'{"a":' * 32 + b"1" + b"}" * 32),
        (b'["' + b"[" * 100 + b'"]', b'["' + b"[" * 100 + b'"]'),
        (b"[" + b"[]," * 50 + b"1]", b"[" + b"[]," * 50 + b"1]"),
    ],
)
def test_what_is_allowed_is_stored_compact(source: bytes, stored: bytes) -> None:
    assert encode(source) == stored


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (b"1" + b"0" * 30, "2\\^64-1"),
        (b"18446744073709551616", "2\\^64-1"),
        (b"-9223372036854775809", "2\\^64-1"),
        (b'["1",-10000000000000000000]', "2\\^64-1"),
        (b'{"\\\\":100000000000000000000}', "2\\^64-1"),
        (b"[" * 33 + b"]" * 33, "32 levels"),
        (b'{"a":[' * 16 + b"{}" + b"]}" * 16, "32 levels"),
        (b"[" * 300 + b"]" * 300, "Recursion limit"),
    ],
)
def test_what_is_not_allowed_is_a_value_error(source: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        encode(source)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [None, {"a": (1.0, math.nan)}]])
def test_values_that_did_not_come_from_json_must_be_finite(value: object) -> None:
    with pytest.raises(ValueError, match="NaN and infinity"):
        jsontext.encode(value)


@pytest.mark.parametrize("value", [b"", {1: 2}, {b"a": 1}, 2**64, "\ud800", object()])
def test_values_that_json_cannot_say_are_a_value_error(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        jsontext.encode(value)


def test_null_beside_finite_floats_is_allowed() -> None:
    assert jsontext.encode({"a": None, "b": [1.5, (2.5,)]}) == b'{"a":null,"b":[1.5,[2.5]]}'


def allowed(value: Any, depth: int = 0) -> bool:
    """The rules again, slowly, on what Python's own json read (which keeps integers exact)."""
    if isinstance(value, dict):
        return depth < 32 and all(allowed(key) and allowed(item, depth + 1) for key, item in value.items())
    if isinstance(value, list):
        return depth < 32 and all(allowed(item, depth + 1) for item in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return -(2**63) <= value < 2**64
    return not isinstance(value, float) or math.isfinite(value)


digits = st.text("0123456789", min_size=17, max_size=23)
numbers = st.one_of(
    st.integers(-(2**66), 2**66).map(str),
    st.sampled_from([2**63, -(2**63), 2**64, 2**64 - 1, -(2**63) - 1]).map(str),
    st.builds("{}{}.{}e{}".format, st.sampled_from(["", "-"]), st.integers(0, 2**66), digits, st.integers(-400, 200)),
    st.builds("{}E+{}".format, st.integers(1, 9), digits.map(lambda text: text[:2])),
)
strings = st.text(st.sampled_from('0123456789[]{}",\\ é'), max_size=30).map(json.dumps)
leaves = st.one_of(numbers, strings, st.just("null"))
texts = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(st.tuples(strings, inner), max_size=3).map(
            lambda items: "{" + ",".join(f"{key} : {item}" for key, item in items) + "}"
        ),
        st.builds(lambda text, n: "[" * n + text + "]" * n, inner, st.integers(14, 18)),
        st.builds(lambda text, n: '{"a":' * n + text + "}" * n, inner, st.integers(14, 18)),
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(texts)
@example("[" * 31 + '"[",{}' + "]" * 31)
@example("-9999999999999999999")
@example('{"" : 18446744073709551616,"" : 0}')
def test_the_quick_checks_agree_with_slow_ones(text: str) -> None:
    source = text.encode()
    try:
        stored = encode(source)
    except ValueError as error:
        refused_by_reader = isinstance(error, orjson.JSONDecodeError)
        written = json.loads(text, object_pairs_hook=lambda pairs: [value for _, value in pairs])
        # Also what a later duplicate key overwrites may not be too wide: the check reads the text.
        assert refused_by_reader or not allowed(written), "refused without a reason"
    else:
        assert allowed(json.loads(text)), "stored although it is not allowed"
        assert json.loads(stored) == json.loads(text)
