"""msgpack from hostile peers: refused at no cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server import packed

ROOT = Path(__file__).parents[2]
BOMBS = {
    "array32": b"\xdd\x00\x00\xff\xfb" * 13107,
    "array32, 4 GiB": b"\xdd\xff\xff\xff\xff" * 13107,
    "array16": b"\xdc\xff\xff" * 21845,
    "map32": b"\xdf\x00\x00\x75\x30\xa1a" * 9362,
    "map16": b"\xde\x75\x30\xa1a" * 13107,
    "small arrays": b"\x9f" * 65536,
    "an array behind others": b"\x93" + b"\xdc\x40\x00" + b"\xc0" * 16384 + b"\xdc\xff\xff" * 16000,
    "str32": b"\xdb\xff\xff\xff\xff" * 13107,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a msgpack object"):
        packed.unpack(BOMBS[name])


def test_no_bomb_takes_10_mib() -> None:
    """In a process of its own: the high-water mark of memory never falls."""
    program = """
import sys
from server import packed
from tests.server.test_packed import BOMBS

def high_water_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

before = high_water_kib()
for bomb in BOMBS.values():
    try:
        packed.unpack(bomb)
    except ValueError:
        pass
print(high_water_kib() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 10 * 1024


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x01\x02",  # two objects
        b"\x92\x01",  # cut
        b"\xa1\xff",  # not UTF-8
        b"\xa3\xed\xa0\x80",  # a surrogate
        b"\x81\x01\x02",  # an integer as a key
        b"\x81\xc0\x02",
        b"\x81\x90\x02",
        b"\xc7\x00\xff",  # a timestamp without a time
    ],
)
def test_what_is_not_an_object_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a msgpack object"):
        packed.unpack(data)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=300)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20)),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
    max_leaves=40,
)


@settings(deadline=None)
@given(values)
def test_honest_messages_announce_what_they_have(value: Any) -> None:
    """The count that guards against bombs must let every message through, whatever formats it uses."""
    packed._check_announced(msgpack.packb(value))


@pytest.mark.parametrize("count", [15, 16, 65535, 65536])
@pytest.mark.parametrize("kind", [list, dict])
def test_honest_long_containers_pass(kind: type, count: int) -> None:
    value: Any = list(range(count)) if kind is list else {str(n): n for n in range(count)}
    data = msgpack.packb([value, "\u0710" * 1000])  # bytes 0xdc, as an array's header begins
    packed._check_announced(data)
    assert packed.unpack(data) == [value, "\u0710" * 1000]


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_the_count_ends_on_any_bytes(data: bytes) -> None:
    try:
        packed._check_announced(data)
    except ValueError:
        pass
