"""Broker URLs that name more than one server."""

from __future__ import annotations

import pytest

from broker.redis.address import Address
from broker.redis.target import parse_target


def test_one_server_is_its_own_seed() -> None:
    target = parse_target("redis://u:p@h:7/3")
    assert target == ("single", [target.server], Address("h", 7, db=3, username="u", password="p"), "")


def test_a_cluster_is_found_through_any_of_its_servers() -> None:
    target = parse_target("redis+cluster://u:p%40s@a:1,b,[::1]:3")
    assert target.kind == "cluster" and target.server == target.seeds[0]
    assert [(seed.host, seed.port) for seed in target.seeds] == [("a", 1), ("b", 6379), ("::1", 3)]
    assert {(seed.username, seed.password) for seed in target.seeds} == {("u", "p@s")}


def test_sentinels_have_a_login_of_their_own_and_no_database() -> None:
    target = parse_target("redis+sentinel://u:p@a,b:2/main/3?sentinel_username=s&sentinel_password=q")
    assert target.kind == "sentinel" and target.master == "main"
    assert target.seeds == [
        Address("a", 26379, username="s", password="q"),
        Address("b", 2, username="s", password="q"),
    ]
    assert (target.server.username, target.server.password, target.server.db) == ("u", "p", 3)
    assert parse_target("redis+sentinel://:p@a/main").seeds == [Address("a", 26379)]


def test_tls_is_for_all_of_them_with_one_context() -> None:
    for url in ("rediss+cluster://a:1,b:2?ssl_cert_reqs=none", "rediss+sentinel://a:1,b:2/main?ssl_cert_reqs=none"):
        target = parse_target(url)
        assert target.server.tls is not None
        assert {id(address.tls) for address in (*target.seeds, target.server)} == {id(target.server.tls)}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis+cluster://", "names no host"),
        ("redis+cluster://a:1/2", "only database 0"),
        ("redis+cluster://a:1?sentinel_password=x", "no sentinels"),
        ("redis+sentinel://a:1", "name the master"),
        ("redis+sentinel://a:1/main/0/x", "name the master"),
        ("redis+cluster://a:port", "[Pp]ort"),
        ("redis+cluster://a?socket_timeout=1", "mean nothing here: socket_timeout"),
    ],
)
def test_wrong_urls_say_what_is_wrong(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_target(url)


def test_no_password_is_shown() -> None:
    shown = repr(parse_target("redis+sentinel://u:hidden@a/main?sentinel_password=concealed"))
    assert "hidden" not in shown and "concealed" not in shown
