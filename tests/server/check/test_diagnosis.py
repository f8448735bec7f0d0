"""What answers to a handshake are taken for."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.check.diagnosis import HEADERS, UPGRADE, Answer, no_upgrade
from server.upgrade import not_upgraded

HTML = {"content-type": "text/html"}


def of_node(version: str, **headers: str) -> Answer:
    told = not_upgraded(version, [(name.encode(), value.encode()) for name, value in headers.items()])
    return Answer(426, {}, json.dumps(told).encode())


@pytest.mark.parametrize(
    ("version", "headers", "missing"),
    [
        ("1.0", {}, "HTTP/1.0 without the header Upgrade and the header Connection"),
        ("1.1", {"upgrade": "websocket"}, "HTTP/1.1 without the header Connection"),
        ("1.1", {"Upgrade": "WebSocket", "connection": "close"}, "HTTP/1.1 without the header Connection"),
        ("1.1", {"connection": "keep-alive, Upgrade"}, "HTTP/1.1 without the header Upgrade"),
        ("1.1", {"connection": "upgrade", "upgrade": "h2c"}, "HTTP/1.1 without the header Upgrade"),
        ("1.1", {"connection": "upgrade", "upgrade": "websocket"}, "HTTP/1.1 without an upgrade"),
    ],
)
def test_a_node_says_what_it_missed(version: str, headers: dict[str, str], missing: str) -> None:
    finding = no_upgrade(of_node(version, **headers)).finding
    assert (finding.detail, finding.advice) == (f"the handshake came to the node over {missing}", UPGRADE)


@pytest.mark.parametrize(
    ("answer", "detail", "advice"),
    [
        (Answer(426, {}, b"Use WebSocket version 13"), "(426): Use WebSocket version 13", UPGRADE),
        (Answer(414, HTML, b"<html>"), "the query is too long for the proxy (414)", HEADERS),
        (Answer(302, {"location": "/login"}, b""), "a redirect (302) to /login", "use that address"),
        (Answer(400, HTML, b"<html>The plain HTTP request was sent to HTTPS port"), "speaks TLS", "https://"),
        (Answer(400, HTML, b"<html>Bad"), "answered with 400", UPGRADE),
        (Answer(418, {}, b""), "answered with 418", UPGRADE),
        (Answer(504, HTML, b""), "do not answer the proxy in time (504)", "upstream"),
    ],
)
def test_what_a_proxy_says_is_explained(answer: Answer, detail: str, advice: str) -> None:
    finding = no_upgrade(answer).finding
    assert finding.status == "failed" and detail in finding.detail and advice in finding.advice


@given(st.integers(100, 599), st.binary(max_size=300), st.sampled_from([{}, HTML]))
def test_whatever_is_answered_there_is_something_to_say_and_to_do(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    finding = no_upgrade(Answer(status, headers, body)).finding
    assert finding.status == "failed" and str(status) in finding.detail + finding.advice + "400" and finding.advice
    assert "\n" not in finding.detail and len(finding.detail) < 400
