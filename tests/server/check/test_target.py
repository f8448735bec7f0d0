"""What the address of a deployment says."""

from __future__ import annotations

import pytest

from server.check.target import parse_target


@pytest.mark.parametrize(
    ("given", "url", "origin"),
    [
        ("https://chat.example.com", "wss://chat.example.com/ws", "https://chat.example.com"),
        ("https://chat.example.com/", "wss://chat.example.com/ws", "https://chat.example.com"),
        ("wss://chat.example.com:443/live/ws", "wss://chat.example.com/live/ws", "https://chat.example.com"),
        ("ws://localhost:8000/ws", "ws://localhost:8000/ws", "http://localhost:8000"),
        ("http://[::1]:8000", "ws://[::1]:8000/ws", "http://[::1]:8000"),
        ("http://[2001:db8::1]", "ws://[2001:db8::1]/ws", "http://[2001:db8::1]"),
    ],
)
def test_the_websocket_and_the_origin_of_its_page(given: str, url: str, origin: str) -> None:
    target = parse_target(given)
    assert (target.url, target.origin) == (url, origin)


def test_what_stands_beside_the_websocket_keeps_its_folder() -> None:
    assert parse_target("https://h/live/ws").beside("/metrics") == "/live/metrics"
    assert parse_target("https://h").beside("/metrics") == "/metrics"


@pytest.mark.parametrize(
    ("given", "local"),
    [("http://127.0.0.1", True), ("http://[::1]", True), ("http://localhost", True), ("http://10.0.0.1", False)],
)
def test_this_machine_is_told_from_others(given: str, local: bool) -> None:
    assert parse_target(given).is_local is local


@pytest.mark.parametrize(
    "given", ["", "h", "ftp://h", "https://", "https://u@h", "https://h?token=x", "https://h#x", "https://h:port"]
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"address of a deployment|must have a host|[Pp]ort"):
        parse_target(given)
