"""The broker URL of a Redis."""

from __future__ import annotations

import ssl

import pytest

from broker.redis.address import Address, parse_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", Address()),
        ("redis://h:7/3", Address(host="h", port=7, db=3)),
        ("redis://u:p%40ss@h", Address(host="h", username="u", password="p@ss")),
        ("redis://:p@h", Address(host="h", password="p")),
        ("unix:///run/r.sock", Address(path="/run/r.sock")),
        ("unix://u:p@/run/r.sock?db=2", Address(path="/run/r.sock", db=2, username="u", password="p")),
    ],
)
def test_urls(url: str, address: Address) -> None:
    assert parse_address(url) == address


def test_tls_verifies_unless_told_otherwise() -> None:
    strict = parse_address("rediss://h").tls
    assert strict is not None and strict.check_hostname and strict.verify_mode is ssl.CERT_REQUIRED
    lax = parse_address("rediss://h?ssl_cert_reqs=none").tls
    assert lax is not None and not lax.check_hostname and lax.verify_mode is ssl.CERT_NONE
    by_chain = parse_address("rediss://h?ssl_check_hostname=false").tls
    assert by_chain is not None and not by_chain.check_hostname and by_chain.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://h?nonsense=1", "mean nothing here: nonsense"),
        ("redis://h?socket_timeout=1", "mean nothing here: socket_timeout"),
        ("redis://h?ssl_ca_certs=/x", "mean nothing here: ssl_ca_certs"),
        ("rediss://h?ssl_cert_reqs=maybe", "none, optional, required"),
        ("redis://h:port", "[Pp]ort"),
    ],
)
def test_wrong_urls_say_what_is_wrong(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_address(url)


def test_no_password_is_shown() -> None:
    address = parse_address("redis://u:secret@h:7")
    assert "secret" not in repr(address) and str(address) == "h:7"
