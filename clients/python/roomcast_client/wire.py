"""Frames as text. Pure."""

from __future__ import annotations

import json
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def encode_data(data: Any) -> str:
    """``data`` as JSON text. TypeError or ValueError for what JSON cannot say (NaN, a lone surrogate, an object)."""
    text = _encode(data)
    text.encode()
    return text


def encode_frame(frame: dict[str, Any], data: str | None = None) -> str:
    """A frame, with ``data`` (JSON text, encoded once and perhaps sent twice) as its last key."""
    text = _encode(frame)
    return text if data is None else f'{text[:-1]},"data":{data}}}'


def decode_frame(data: bytes) -> Any:
    """ValueError for bytes that are no JSON."""
    return json.loads(data)
