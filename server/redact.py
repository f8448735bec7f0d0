"""Text made fit for a log or an error message: without credentials, without control characters. Pure."""

from __future__ import annotations

import re

_NAMES = "(?:access_|refresh_)?token|session|secret|(?:sentinel_)?password"
_CREDENTIALS = [
    (re.compile(rf"(?i)\b({_NAMES})=[^&\s\"',;)]+"), r"\1=***"),  # query strings
    (re.compile(rf"(?i)([\"'](?:{_NAMES})\\?[\"']\s*:\s*b?\\?[\"'])[^\"'\\]*"), r"\1***"),  # JSON, Python dicts
    (re.compile(r"(?i)\b((?:authorization|x-api-key)[\"']?\s*[:=,]\s*b?[\"']?(?:\w+\s+)?)[^\s\"',]+"), r"\1***"),
    (re.compile(r"(?i)\b(bearer\s+)[^\s\"',]{8,}"), r"\1***"),
    (re.compile(r"(roomcast\.token\.)[^\s\"',]+"), r"\1***"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), "***"),  # any JWT, wherever it stands
    (re.compile(r"(://[^/@\s:]*:)\S*@"), r"\1***@"),  # user:password@host
]
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    0x0A: "\\n",
    0x0D: "\\r",
    0x09: "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
_CONTROLS_BUT_NEWLINE = {code: text for code, text in _CONTROLS.items() if code != 0x0A}


def redact(text: str) -> str:
    """The same text with tokens, session keys and passwords replaced by ``***``."""
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return text


def escape(text: str, *, keep_newlines: bool = False) -> str:
    """The same text with what drives terminals, forges lines or is no UTF-8 spelled out."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text.translate(_CONTROLS_BUT_NEWLINE if keep_newlines else _CONTROLS)
