"""msgpack from clients, read so that hostile bytes cost nothing. Pure.

The C unpacker creates a list as long as its header says before it has seen an item: 64 KiB of nested headers that each
announce 65,535 items cost 69 MiB of resident memory and 48 ms (msgpack 1.2.4). An honest message has at least one byte
for every item it announces, so messages whose headers could cost more than ``_MAX_ALLOCATED_BYTES`` are counted first.
Maps are not created in advance.
"""

from __future__ import annotations

from typing import Final

import msgpack

_MAX_ALLOCATED_BYTES: Final = 4 * 1024 * 1024
_POINTER_BYTES: Final = 8

# First bytes 0xc0 … 0xdf: (bytes of the header after the first, of which so many are a length; bytes after the header).
# https://github.com/msgpack/msgpack/blob/master/spec.md#formats
_NIL_TO_MAP32: Final = (
    (0, 0),  # nil
    (0, 0),  # never used
    (0, 0),  # false
    (0, 0),  # true
    (1, 0),  # bin 8
    (2, 0),  # bin 16
    (4, 0),  # bin 32
    (1, 1),  # ext 8: a type follows the length
    (2, 1),  # ext 16
    (4, 1),  # ext 32
    (0, 4),  # float 32
    (0, 8),  # float 64
    (0, 1),  # uint 8
    (0, 2),  # uint 16
    (0, 4),  # uint 32
    (0, 8),  # uint 64
    (0, 1),  # int 8
    (0, 2),  # int 16
    (0, 4),  # int 32
    (0, 8),  # int 64
    (0, 2),  # fixext 1: a type and the data
    (0, 3),  # fixext 2
    (0, 5),  # fixext 4
    (0, 9),  # fixext 8
    (0, 17),  # fixext 16
    (1, 0),  # str 8
    (2, 0),  # str 16
    (4, 0),  # str 32
    (2, 0),  # array 16
    (4, 0),  # array 32
    (2, 0),  # map 16
    (4, 0),  # map 32
)


class _Foreign:
    """Stands for an extension value: JSON has none, so whoever encodes it refuses it."""


def unpack(data: bytes) -> object:
    """Read one msgpack object; map keys must be strings. Raises ValueError.

    bin, ext and timestamp values come out as objects that server/jsontext.py refuses.
    """
    wide_arrays = data.count(b"\xdc") + data.count(b"\xdd")
    if wide_arrays * len(data) * _POINTER_BYTES > _MAX_ALLOCATED_BYTES:
        _check_announced(data)
    try:
        value: object = msgpack.unpackb(data, raw=False, strict_map_key=True, ext_hook=_foreign)
    except Exception as error:  # msgpack raises a dozen unrelated types on hostile bytes
        raise ValueError(f"not a msgpack object: {error or 'nested too deep, or a byte that means nothing'}") from error
    return value


def _foreign(code: int, data: bytes) -> _Foreign:
    return _Foreign()


def _check_announced(data: bytes) -> None:
    """Raises ValueError if headers announce more items than there are bytes left for."""
    at, owed, size = 0, 1, len(data)
    while owed:
        if owed > size - at:
            raise ValueError("not a msgpack object: it announces more items than it has")
        owed -= 1
        first = data[at]
        at += 1
        if first < 0x80 or first >= 0xE0:  # a small integer
            continue
        if first < 0x90:
            owed += 2 * (first & 0x0F)
        elif first < 0xA0:
            owed += first & 0x0F
        elif first < 0xC0:
            at += first & 0x1F
        else:
            length_bytes, fixed = _NIL_TO_MAP32[first - 0xC0]
            length = int.from_bytes(data[at : at + length_bytes], "big")
            at += length_bytes + fixed
            if first >= 0xDE:
                owed += 2 * length
            elif first >= 0xDC:
                owed += length
            else:
                at += length
