"""Which pages may open a WebSocket: every line here is a trick somebody has tried."""

from __future__ import annotations

import pytest

from server.origin import origin_is_allowed


def allowed(origin: str | None, *entries: str, host: str | None = "app.example", dev: bool = False) -> bool:
    return origin_is_allowed(origin, host, entries, dev)


def test_no_origin_is_not_a_browser() -> None:
    assert allowed(None)


@pytest.mark.parametrize(
    "origin", ["https://app.example", "http://app.example", "https://APP.example", "https://app.example:443"]
)
def test_the_own_host_is_allowed(origin: str) -> None:
    assert allowed(origin)


def test_the_port_of_the_own_host_counts() -> None:
    assert allowed("http://app.example:8000", host="app.example:8000")
    assert not allowed("http://app.example:8001", host="app.example:8000")
    assert not allowed("http://app.example:8000")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.example",
        "https://evil.example, https://app.example",
        "https://app.example, https://app.example",
        "https://app.example.evil",
        "https://evil-app.example",
        "https://app.example@evil.example",
        "https://app.example:443@evil.example",
        "https://app.example/",
        "https://app.example?x",
        "https://app.example:99999",
        "file://app.example",
        "javascript:alert(1)",
        "app.example",
        "https://",
        "https://[::1",
    ],
)
def test_tricks_are_refused(origin: str) -> None:
    assert not allowed(origin)


def test_listed_origins_match_scheme_host_and_port() -> None:
    assert allowed("https://a.com", "https://a.com")
    assert allowed("https://A.com:443", "https://a.com")
    assert not allowed("http://a.com", "https://a.com")
    assert not allowed("https://a.com:8443", "https://a.com")
    assert allowed("https://a.com:8443", "https://b.com", "https://a.com:8443")


def test_wildcards_are_sub_domains_only() -> None:
    assert allowed("https://x.a.com", "https://*.a.com")
    assert allowed("https://x.y.a.com", "https://*.a.com")
    assert not allowed("https://a.com", "https://*.a.com")
    assert not allowed("https://evila.com", "https://*.a.com")
    assert not allowed("http://x.a.com", "https://*.a.com")


def test_bare_domains_take_any_scheme() -> None:
    assert allowed("https://a.com", "a.com") and allowed("http://a.com", "a.com")
    assert not allowed("https://x.a.com", "a.com")


def test_bare_names_of_this_machine_take_any_port() -> None:
    assert allowed("http://localhost:5173", "localhost") and allowed("http://127.0.0.1:3000", "127.0.0.1")
    assert not allowed("http://localhost.evil.example", "localhost")


def test_a_star_allows_every_real_origin() -> None:
    assert allowed("https://anything.example", "*")
    assert not allowed("null", "*")


@pytest.mark.parametrize("origin", ["http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:8080"])
def test_local_pages_are_allowed_in_dev_mode_only(origin: str) -> None:
    assert allowed(origin, dev=True)
    assert not allowed(origin, dev=False)


def test_dev_mode_allows_nothing_else() -> None:
    assert not allowed("http://localhost.evil.example", dev=True)
