"""No credential and no control character in what people read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.redact import escape, redact

TOKEN = "Zm9vYmFyYmF6cXV4"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "line",
    [
        '127.0.0.1:5 - "WebSocket /ws?token={}" [accepted]',
        '"GET /ws?user=3&token={}&x=1 HTTP/1.1"',
        "/ws?access_token={}",
        "/ws?session={}",
        "Authorization: Bearer {}",
        "authorization=Basic {}",
        "X-API-Key: {}",
        "[(b'x-api-key', b'{}'), (b'host', b'x')]",
        "[(b'authorization', b'Bearer {}'), (b'host', b'x')]",
        "{{'authorization': 'Bearer {}'}}",
        '{{"op":"auth","token":"{}"}}',
        '\'{{\\"token\\":\\"{}\\"}}\'',
        "subprotocols ['roomcast.json.v1', 'roomcast.token.{}']",
        "redis://user:{}@host:6379/0 is away",
        "redis://:{}@host",
        "redis://user:p@ss/{}@host",
        "redis://host/0?password={}",
        "redis+sentinel://u:{}@a:1,b:2/main",
        "redis+sentinel://a/main?sentinel_password={}",
    ],
)
@pytest.mark.parametrize("secret", [TOKEN, JWT])
def test_credentials_are_not_shown(line: str, secret: str) -> None:
    shown = redact(line.format(secret))
    assert not any(part in shown for part in secret.split("."))
    assert "***" in shown


def test_a_jwt_is_recognised_wherever_it_stands() -> None:
    assert redact(f"could not decode {JWT}!") == "could not decode ***!"


@pytest.mark.parametrize(
    "line",
    [
        "the token is too long",
        "no bearer of news",
        "http://localhost:8000/demo",
        "session closed",
        "redis://redis:6379/0",
    ],
)
def test_prose_and_plain_addresses_stay(line: str) -> None:
    assert redact(line) == line


@given(st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF), max_size=50))
def test_escaped_text_can_be_written_and_is_one_line(text: str) -> None:
    escaped = escape(text)
    escaped.encode()
    assert len(escaped.splitlines()) <= 1
    assert not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in escaped)


def test_a_terminal_sequence_is_spelled_out() -> None:
    assert escape("a\x1b[2Jb\r\nc\u2028d\ud800") == "a\\x1b[2Jb\\r\\nc\\u2028d\\ud800"
    assert escape("a\n\tb", keep_newlines=True) == "a\n\\tb"
