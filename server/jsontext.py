"""Checked JSON text: what a client calls ``data``, in the one form in which it is stored and relayed. Pure.

The text is compact UTF-8 written by orjson. Of duplicate keys the last wins, integers lie in −2^63 … 2^64−1, floats
are finite, there are no lone surrogates, and nothing is nested deeper than ``MAX_DEPTH``. orjson sees to most of that
itself. Three things it lets pass are looked for here, each behind a test that costs next to nothing on the common
message: integers of more than 64 bits become floats, non-finite floats are written as ``null``, and 254 levels are
allowed.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Any, Final

import orjson

MAX_DEPTH: Final = 32
MIN_INTEGER: Final = -(2**63)
MAX_INTEGER: Final = 2**64 - 1

# Nineteen digits in a row are the shortest integer that may not fit. Mapping all digits to one, and whatever may stand
# before a number to another, makes the search for them a plain substring search: 0.2 µs for 140 bytes where a regular
# expression takes 1.6, and ids of nineteen digits sent as strings, as they should be, cost no more.
_ROUGHLY: Final = bytes.maketrans(b"0123456789:[,- \t\r\n", b"0" * 10 + b":" * 8)
_NINETEEN_DIGITS: Final = b"0" * 19
_WIDE_NUMBER: Final = b":" + _NINETEEN_DIGITS

_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_strings = re.compile(_STRING, re.DOTALL)
# Strings are consumed first, so that digits inside them are not taken for numbers.
_wide_integers = re.compile(_STRING + rb"|(?<![0-9.eE+-])(-?[0-9]{19,}+)(?![.eE])", re.DOTALL)

_ONE_BRACKET: Final = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def encode(value: object, source: bytes | None = None) -> bytes:
    """Write a value as checked JSON text.

    ``source`` is the JSON text from which orjson read the value (all of it, or a text that contains it); without it the
    value came from elsewhere (msgpack, the application). Raises ValueError; the text says what is not allowed.
    """
    try:
        text = orjson.dumps(value)
    except TypeError as error:  # orjson.JSONEncodeError is one
        raise ValueError(f"not JSON: {error}") from error
    if source is None:
        if b"null" in text and not _is_finite(value):
            raise ValueError("NaN and infinity are not JSON: send null or a string")
    elif _may_have_wide_integer(source) and _has_wide_integer(source):
        raise ValueError("an integer must lie in -2^63 ... 2^64-1: send larger ones as strings")
    if len(text) > 2 * MAX_DEPTH and _is_deeper_than(MAX_DEPTH, text):
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels: send it flatter")
    return text


def _may_have_wide_integer(source: bytes) -> bool:
    roughly = source.translate(_ROUGHLY)
    return _WIDE_NUMBER in roughly or roughly.startswith(_NINETEEN_DIGITS)


def _has_wide_integer(source: bytes) -> bool:
    for match in _wide_integers.finditer(source):
        digits = match[1]
        if digits is not None and not MIN_INTEGER <= int(digits) <= MAX_INTEGER:
            return True
    return False


def _is_finite(value: object) -> bool:
    """Whether no float in it is NaN or infinite. A loop, not a recursion: the depth is not yet known to be small."""
    level: list[Any] = [value]
    while level:
        deeper: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is float:
                if not isfinite(item):
                    return False
            elif kind is dict:
                deeper.extend(item.values())
            elif kind is list or kind is tuple:
                deeper.extend(item)
        level = deeper
    return True


def _is_deeper_than(depth: int, text: bytes) -> bool:
    """Takes valid JSON. Each turn removes the innermost brackets: as many turns as levels, at the speed of C."""
    if text.count(b"[") + text.count(b"{") <= depth:
        return False
    brackets = _strings.sub(b"", text).translate(_ONE_BRACKET, _NOT_BRACKETS)
    for _ in range(depth):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True
