"""Commands written in pieces are what hiredis writes."""

from __future__ import annotations

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from broker.redis.resp import array, bulk

values = st.one_of(st.binary(max_size=300), st.text(max_size=50), st.integers(-(2**63), 2**63))


@given(st.lists(values, min_size=1, max_size=12), st.integers(0, 12))
def test_a_command_in_pieces_is_the_command(command: list[bytes | str | int], cut: int) -> None:
    pieces = array(len(command)) + bulk(*command[:cut]) + bulk(*command[cut:])
    assert pieces == hiredis.pack_command(tuple(command))  # type: ignore[arg-type]  # the stub means "tuple of one"
