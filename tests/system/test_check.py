"""``roomcast check`` through a real nginx: with deploy's own configuration nothing fails; with a mistake in it, the
check that it breaks fails and names the directive."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.check import inside
from server.check.client import Dialer
from server.check.report import Finding
from server.check.run import CHECKS, run
from server.check.target import parse_target
from server.check.tickets import tickets
from server.check.world import World
from server.settings import Settings
from tests.api.calls import KEYS
from tests.support.nginx import NginxServer
from tests.support.node import ROOT, NodeServer
from tests.support.redis_server import RedisServer, free_port

pytestmark = [pytest.mark.nginx, pytest.mark.system]

SECRET = "s" * 32
OURS = Settings.model_validate({"secret": SECRET})
PING_S = 1.3
"""Longer than the shortest timeout that nginx has."""

Found = dict[str, Finding]


@pytest.fixture(scope="module")
def nodes(redis_server: RedisServer) -> Iterator[tuple[int, int]]:
    """The ports of two, that are not in development mode."""
    shared: dict[str, Any] = {"secret": SECRET, "broker": redis_server.url, "ping_s": PING_S, "api_keys": KEYS}
    with NodeServer(node="one", **shared) as one, NodeServer(node="two", **shared) as two:
        yield one.port, two.port


async def checked(url: str, *, settings: Settings = OURS, ca: Path | None = None, **world: Any) -> Found:
    target = parse_target(url)
    trust = ssl.create_default_context(cafile=ca) if target.secure else None
    told: list[str] = []
    found: Found = {}
    async for line in run(World(Dialer(target, trust), tickets(settings, None), "room", **world), told.append):
        found[line.name] = line.finding
    assert told == list(found) == [check.name for check in CHECKS]
    return found


def of(found: Found, status: str) -> set[str]:
    return {name for name, finding in found.items() if finding.status == status}


INSIDE = {
    *("token", "join", "round trip", "across nodes", "presence", "resume", "long message", "silence"),
    *("origin of its own", "foreign origin", "no token", "bad token", "development mode"),
}
"""What needs a handshake."""


async def test_nothing_fails_behind_our_own_nginx(nodes: tuple[int, int]) -> None:
    with NginxServer(nodes) as nginx:
        found = await checked(nginx.http_url, min_nodes=2)
        assert of(found, "ok") == {check.name for check in CHECKS} - {"certificate"}, found
        assert found["certificate"].status == "skipped"
        assert "from one." in found["across nodes"].detail or "from two." in found["across nodes"].detail


NO_UPGRADE = {"proxy_set_header Upgrade $http_upgrade;": ""}
NO_CONNECTION = {"proxy_set_header Connection $connection_upgrade;": ""}


@pytest.mark.parametrize(
    ("changes", "said", "advice"),
    [
        (NO_UPGRADE, "over HTTP/1.1 without the header Upgrade", "proxy_set_header Upgrade $http_upgrade;"),
        (NO_CONNECTION, "without the header Connection", "proxy_set_header Connection $connection_upgrade;"),
        (NO_UPGRADE | NO_CONNECTION, "without the header Upgrade and the header Connection", "proxy_http_version 1.1"),
        ({"proxy_http_version 1.1;": "proxy_http_version 1.0;"}, "(400)", "proxy_http_version 1.1"),
        ({"location / {": "location /elsewhere {"}, "nothing is served there (404)", "location"),
        ({"location / {": "return 301 https://$host/; location / {"}, "to https://", "that address"),
        ({"location / {": "location / { return 200 hello;"}, "no node", "server_name"),
        ({"location / {": "location / { deny all;"}, "forbids it (403)", "deny"),
        ({"127.0.0.1 0;": "", "connections 500": "connections 1"}, "", "limit_conn"),
    ],
    ids=["Upgrade", "Connection", "neither", "HTTP/1.0", "no location", "redirect", "another site", "deny", "limit"],
)
async def test_a_handshake_that_a_proxy_spoils_is_explained(
    nodes: tuple[int, int], changes: dict[str, str], said: str, advice: str
) -> None:
    with NginxServer(nodes, changes=changes) as nginx:
        found = await checked(nginx.http_url)
    told = [finding for finding in found.values() if finding.status == "failed"]
    assert said in told[0].detail and advice in told[0].advice
    if found["handshake"].status == "failed":
        assert INSIDE <= of(found, "skipped")


async def test_a_proxy_that_reaches_no_node_is_told_from_one_that_is_not_there() -> None:
    with NginxServer([free_port()]) as nginx:
        found = await checked(nginx.http_url)
        assert (
            found["handshake"].detail.startswith("the proxy reaches no node") and "(502)" in found["handshake"].detail
        )
        assert "upstream" in found["handshake"].advice
    found = await checked(nginx.http_url)
    assert of(found, "failed") == {"address"} and "is the proxy running" in found["address"].advice
    assert found["address"].detail.endswith(": Connection refused")


@pytest.mark.parametrize(
    ("changes", "check", "advice"),
    [
        ({"proxy_read_timeout 75s;": "proxy_read_timeout 1s;"}, "silence", "proxy_read_timeout 75s"),
        ({"Host $http_host;": "Host $host;"}, "origin of its own", "proxy_set_header Host $http_host"),
        (
            {"proxy_set_header Host": 'proxy_set_header Origin ""; proxy_set_header Host'},
            "foreign origin",
            "no proxy_set_header Origin",
        ),
        ({"buffers 4 16k;": "buffers 4 4k;"}, "bad token", "large_client_header_buffers 4 16k"),
    ],
    ids=["timeout", "Host", "Origin", "headers"],
)
async def test_one_mistake_fails_one_check_which_names_the_directive(
    nodes: tuple[int, int], changes: dict[str, str], check: str, advice: str
) -> None:
    with NginxServer(nodes, changes=changes) as nginx:
        found = await checked(nginx.http_url, min_nodes=2)
    assert of(found, "failed") == {check}, found
    assert advice in found[check].advice


async def test_what_is_for_operators_must_not_be_reached(nodes: tuple[int, int]) -> None:
    with NginxServer(nodes, changes={"location ~ ^/(metrics|api|status|readyz)": "location ~ ^/(nothing)"}) as nginx:
        found = await checked(nginx.http_url)
    assert of(found, "failed") == {"metrics", "api", "status page", "readiness"}
    for name in of(found, "failed"):
        assert "location ~ ^/(metrics|api|status|readyz)(/|$) { return 404; }" in found[name].advice


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that this machine signed itself, for localhost."""
    folder = tmp_path_factory.mktemp("tls")
    folder.parent.parent.chmod(0o755)
    folder.parent.chmod(0o755)
    certificate, key = folder / "cert.pem", folder / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "10", *names]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


async def test_a_certificate_that_nobody_trusts_is_told_and_the_rest_is_tried_all_the_same(
    nodes: tuple[int, int], certificate: tuple[Path, Path]
) -> None:
    tls = NginxServer(nodes)
    files = f"ssl_certificate {certificate[0]};\nssl_certificate_key {certificate[1]};\n"
    tls.change(f"listen 127.0.0.1:{tls.port};", f"listen 127.0.0.1:{tls.port} ssl;\n{files}")
    with tls as nginx:
        found = await checked(f"https://localhost:{nginx.port}", min_nodes=2)
        assert of(found, "failed") == {"certificate"}, found
        assert "self-signed" in found["certificate"].detail and "fullchain.pem" in found["certificate"].advice

        trusted = await checked(f"https://localhost:{nginx.port}", ca=certificate[0])
        assert trusted["certificate"].status == "warning" and "for 9 more days" in trusted["certificate"].detail
        assert of(trusted, "failed") == set()

        other_name = await checked(f"https://127.0.0.1:{nginx.port}", ca=certificate[0])
        assert of(other_name, "failed") == {"certificate"} and "this very name" in other_name["certificate"].advice

        plain = await checked(f"http://localhost:{nginx.port}")
        assert "https://" in plain["handshake"].advice
    with NginxServer(nodes) as nginx:
        found = await checked(f"https://localhost:{nginx.port}")
        assert "listen … ssl" in found["certificate"].advice


async def test_a_secret_that_is_not_theirs_and_none_at_all_are_told_apart(nodes: tuple[int, int]) -> None:
    url = f"http://127.0.0.1:{nodes[0]}"
    other = await checked(url, settings=Settings.model_validate({"secret": "x" * 32}), direct=True)
    assert of(other, "failed") == {"token"} and "is ROOMCAST_SECRET the one of the nodes" in other["token"].advice
    none = await checked(url, settings=Settings(), direct=True)
    assert of(none, "failed") == set() and none["token"].status == "skipped" and "--token" in none["token"].advice


async def test_nodes_that_do_not_hear_one_another_are_found(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside, "ARRIVES_WITHIN_S", 1.0)
    shared: dict[str, Any] = {"secret": SECRET, "broker": redis_server.url, "ping_s": 1}
    with NodeServer(prefix="one", **shared) as one, NodeServer(prefix="two", **shared) as two:
        with NginxServer([one.port, two.port]) as nginx:
            found = await checked(nginx.http_url)
    (name,) = of(found, "failed") & {"round trip", "across nodes"}
    assert "did not arrive" in found[name].detail and "ROOMCAST_PREFIX" in found[name].advice


async def test_a_node_that_the_proxy_does_not_know_is_missed(nodes: tuple[int, int]) -> None:
    with NginxServer(nodes[:1]) as nginx:
        found = await checked(nginx.http_url, min_nodes=2)
    assert of(found, "failed") == {"across nodes"} and "upstream" in found["across nodes"].advice
    assert found["across nodes"].detail.startswith("only one.") and "20 connections" in found["across nodes"].detail


@pytest.mark.parametrize("origins", ["*", "https://other.example"])
async def test_origins_are_tried_as_pages_have_them(redis_server: RedisServer, origins: str) -> None:
    with NodeServer(secret=SECRET, broker=redis_server.url, ping_s=0.5, origins=origins) as node:
        found = await checked(node.http_url, origins=("https://other.example", "https://third.example"), direct=True)
    if origins == "*":
        assert of(found, "failed") == {"foreign origin"} and "ROOMCAST_ORIGINS" in found["foreign origin"].advice
    else:
        assert of(found, "failed") == {"origin of its own"}
        assert "https://third.example is refused" in found["origin of its own"].detail


def roomcast(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("ROOMCAST_")}
    return subprocess.run(
        [sys.executable, "-m", "server", "check", *arguments],
        cwd=ROOT,
        env=own | {"COLUMNS": "160"} | (environ or {}),
        capture_output=True,
        text=True,
        timeout=45,
    )


def test_as_a_command_it_prints_a_table_or_json_and_ends_with_what_it_found(nodes: tuple[int, int]) -> None:
    url = f"http://127.0.0.1:{nodes[0]}"
    good = roomcast(url, "--direct", environ={"ROOMCAST_SECRET": SECRET})
    assert good.returncode == 0, good.stdout
    assert "✓  round trip" in good.stdout and "0 failed" in good.stdout and good.stderr == ""
    bad = roomcast(url, "--json", environ={"ROOMCAST_SECRET": SECRET})
    found = json.loads(bad.stdout)
    assert (bad.returncode, found["ok"], found["url"]) == (1, False, f"ws://127.0.0.1:{nodes[0]}/ws")
    by_name = {each["name"]: each for each in found["checks"]}
    assert by_name["metrics"]["status"] == "failed" and "location" in by_name["metrics"]["advice"]
    assert SECRET not in good.stdout + bad.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chat.example.com"], "'chat.example.com' is no address of a deployment: write https://"),
        (["https://u:p@chat.example.com"], "neither credentials nor a query"),
        (["http://h", "--room", "no room"], "'no room' is no room name"),
        (["https://h", "--ca", "/nowhere"], "No such file"),
        (["http://h", "--nodes", "0"], "--nodes"),
        ([], "Missing argument 'url'"),
    ],
)
def test_a_mistake_in_the_command_is_one_line_and_2(arguments: list[str], said: str) -> None:
    result = roomcast(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert said in result.stderr and len(result.stderr.splitlines()) == 1


async def test_who_guessed_too_often_is_refused_sooner_and_that_is_right() -> None:
    with NodeServer(secret=SECRET, ping_s=0.5, failed_auth_per_min=1) as node:
        found = await checked(node.http_url, direct=True)
        again = await checked(node.http_url, direct=True)
    assert of(found, "failed") | of(again, "failed") == set(), (found, again)
    assert "(429)" in again["bad token"].detail


async def test_a_node_in_development_mode_is_pointed_out() -> None:
    with NodeServer(ping_s=0.5) as node:
        found = await checked(node.http_url, settings=Settings(), direct=True)
    assert found["development mode"].status == "warning", "on this machine it is no failure"
    assert found["no token"].status == "warning"
    assert found["token"].status == "ok" and of(found, "failed") == set()
