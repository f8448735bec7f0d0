"""deploy/nginx in a real nginx: what reaches a node, what does not, and what is written down about it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.deploy.stand_in import StandIn
from tests.support.nginx import CONFIGURATION, PATH, VERBATIM, NginxServer
from tests.support.node import lasting_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.nginx


@contextlib.asynccontextmanager
async def nginx(*nodes: StandIn) -> AsyncIterator[NginxServer]:
    async with contextlib.AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node.serving())
        server = await asyncio.to_thread(NginxServer([node.port for node in nodes]).__enter__)
        stack.push_async_callback(asyncio.to_thread, server.__exit__)
        yield server


@pytest.mark.parametrize("upstream", ["upstream-compose.conf", "upstream-static.conf"])
def test_both_forms_of_the_upstream_are_accepted_as_they_are(tmp_path: Path, upstream: str) -> None:
    for name in (*VERBATIM, "listen.conf"):
        shutil.copy(CONFIGURATION / name, tmp_path / name)
    shutil.copy(CONFIGURATION / upstream, tmp_path / "upstream.conf")
    result = subprocess.run(
        ["nginx", "-t", "-q", "-e", "stderr", "-p", f"{tmp_path}/", "-c", str(tmp_path / "nginx.conf")],
        env=os.environ | {"PATH": PATH},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (result.returncode, result.stderr) == (0, "")


async def test_websockets_are_spread_over_the_nodes_and_pass_both_ways() -> None:
    nodes = StandIn(), StandIn()
    async with nginx(*nodes) as proxy, contextlib.AsyncExitStack() as stack:
        for number in range(4):
            client = await stack.enter_async_context(connect(proxy.ws_url))
            await client.recv()
            await client.send(f"message {number}")
            assert await client.recv() == f"message {number}"
        assert [len(node.requests) for node in nodes] == [2, 2]


async def test_what_a_client_claims_about_itself_counts_for_nothing() -> None:
    node = StandIn()
    lies = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=6.6.6.6",
    }
    async with nginx(node) as proxy:
        async with connect(proxy.ws_url, additional_headers=lies) as client:
            seen = json.loads(await client.recv())
        async with httpx.AsyncClient() as http:
            seen_by_http = (await http.get(proxy.http_url + "/healthz", headers=lies)).json()
    for headers in (seen, seen_by_http):
        values = [value for name, value in headers if name.startswith("x-forwarded") or name == "forwarded"]
        assert sorted(values) == ["127.0.0.1", "http"]
    assert ["host", f"127.0.0.1:{proxy.port}"] in seen
    assert [value for name, value in seen if name == "connection"] == ["upgrade"]


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/metrics/", "/%6detrics", "//metrics", "/x/../metrics", "/api/v1/publish", "/api", "/readyz"],
)
async def test_what_is_for_operators_is_not_public(path: str) -> None:
    node = StandIn()
    async with nginx(node) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert node.requests == []


async def test_a_node_that_is_away_or_not_ready_costs_no_connection() -> None:
    gone, draining, good = StandIn(), StandIn(), StandIn()
    draining.status = 503
    async with good.serving(), draining.serving():
        proxy = await asyncio.to_thread(NginxServer([gone.port, draining.port, good.port]).__enter__)
        try:
            async with httpx.AsyncClient() as http:
                answers = [(await http.get(proxy.http_url + "/healthz")).status_code for _ in range(6)]
            for _ in range(3):
                async with connect(proxy.ws_url) as client:
                    await client.recv()
        finally:
            await asyncio.to_thread(proxy.__exit__)
    assert answers == [200] * 6
    assert len(good.requests) >= 6


async def test_no_token_is_written_down() -> None:
    node = StandIn()
    async with nginx(node) as proxy:
        async with connect(proxy.ws_url + "?token=hunter2") as client:
            await client.recv()
        await eventually(lambda: '"status":101' in proxy.log)
        written = proxy.log
    assert "hunter2" not in written
    (line,) = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    assert (line["path"], line["status"], line["upstream"]) == ("/ws", 101, f"127.0.0.1:{node.port}")


async def test_no_token_is_written_down_when_every_node_is_away_either() -> None:
    proxy = await asyncio.to_thread(NginxServer([lasting_port()]).__enter__)
    try:
        async with httpx.AsyncClient() as http:
            assert (await http.get(proxy.http_url + "/demo?token=hunter2")).status_code == 502
        await eventually(lambda: '"status":502' in proxy.log)
        assert "hunter2" not in proxy.log
    finally:
        await asyncio.to_thread(proxy.__exit__)
