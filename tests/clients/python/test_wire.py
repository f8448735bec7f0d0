from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roomcast_client.wire import decode_frame, encode_data, encode_frame

Json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('añ\n"\\€😀'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab"), inner),
    max_leaves=10,
)


@given(Json)
def test_data_put_into_a_frame_comes_out_again(data: Any) -> None:
    frame = {"op": "message", "room": "r"}
    assert json.loads(encode_frame(frame, encode_data(data))) == frame | {"data": data}
    assert decode_frame(encode_frame(frame).encode()) == frame


@pytest.mark.parametrize("data", [float("nan"), float("inf"), "\ud800", object(), {1, 2}, b"bytes"])
def test_what_json_cannot_say_is_refused_before_it_is_sent(data: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode_data(data)
