"""deploy/nginx in a real nginx: what one address may have, TLS, and the port for operators."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.deploy.stand_in import StandIn
from tests.support.certificates import self_signed
from tests.support.nginx import CONFIGURATION, NginxServer
from tests.support.node import NodeServer, lasting_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.nginx

SOMEBODY, SOMEBODY_ELSE = "127.0.0.9", "127.0.0.10"
"""Addresses of clients. 127.0.0.1 is the machine itself and not limited."""


@contextlib.asynccontextmanager
async def nginx(node: StandIn, **options: Any) -> AsyncIterator[NginxServer]:
    async with node.serving():
        server = await asyncio.to_thread(NginxServer([node.port], **options).__enter__)
        try:
            yield server
        finally:
            await asyncio.to_thread(server.__exit__)


async def test_one_address_may_have_so_many_connections_and_others_do_not_feel_it() -> None:
    async with (
        nginx(StandIn(), changes={"limit_conn connections 500": "limit_conn connections 3"}) as proxy,
        contextlib.AsyncExitStack() as stack,
    ):

        async def come(address: str) -> None:
            client = await stack.enter_async_context(connect(proxy.ws_url, local_addr=(address, 0), proxy=None))
            await client.recv()

        for address in (SOMEBODY, SOMEBODY, SOMEBODY, SOMEBODY_ELSE, *("127.0.0.1",) * 5):
            await come(address)
        with pytest.raises(InvalidStatus) as refused:
            await come(SOMEBODY)
        assert refused.value.response.status_code == 429


async def test_one_address_may_ask_so_often_and_others_do_not_feel_it() -> None:
    changes = {"rate=50r/s": "rate=1r/m", "burst=500": "burst=4"}
    async with nginx(StandIn(), changes=changes) as proxy:
        statuses: dict[str, list[int]] = {}
        for address in (SOMEBODY, SOMEBODY_ELSE, "127.0.0.1"):
            async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(local_address=address)) as http:
                statuses[address] = [(await http.get(proxy.http_url + "/healthz")).status_code for _ in range(8)]
    assert statuses[SOMEBODY] == statuses[SOMEBODY_ELSE] == [200] * 5 + [429] * 3
    assert statuses["127.0.0.1"] == [200] * 8


async def test_a_large_body_and_a_slow_head_end_at_nginx() -> None:
    node = StandIn()
    changes = {"client_header_timeout 5s": "client_header_timeout 1s"}
    async with nginx(node, changes=changes) as proxy:
        async with httpx.AsyncClient() as http:
            answer = await http.post(proxy.http_url + "/x", content=b"x" * (2**20 + 1))
        assert (answer.status_code, answer.headers["server"]) == (413, "nginx")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert node.requests == []


async def test_operators_reach_what_the_public_does_not_and_grafana() -> None:
    node, grafana = StandIn(), StandIn()
    port = lasting_port()
    changes = {"listen 8081": f"listen 127.0.0.1:{port}", "grafana:3000": f"127.0.0.1:{grafana.port}"}
    async with grafana.serving(), nginx(node, more=("operators.conf",), changes=changes) as proxy:
        async with httpx.AsyncClient() as http:
            for path in ("/metrics", "/api/v1/nodes", "/status", "/readyz"):
                assert (await http.get(proxy.http_url + path)).status_code == 404
                assert (await http.get(f"http://127.0.0.1:{port}{path}")).status_code == 200
            await http.get(f"http://127.0.0.1:{port}/grafana/d/fleet")
        async with connect(f"ws://127.0.0.1:{port}/status/live", proxy=None) as client:
            await client.recv()
    assert node.requests == ["/metrics", "/api/v1/nodes", "/status", "/readyz", "/status/live"]
    assert grafana.requests == ["/grafana/d/fleet"]


@pytest.fixture
def with_tls() -> Iterator[tuple[NginxServer, NodeServer, int]]:
    """Before a real node; its TLS port."""
    port = lasting_port()
    with NodeServer(trusted_proxies="127.0.0.1", secret="s" * 32, dev=True) as node:
        proxy = NginxServer([node.port], listen=(CONFIGURATION / "tls.conf").read_text())
        proxy.change("listen 8443", f"listen 127.0.0.1:{port}")
        proxy.change("listen 8080", f"listen 127.0.0.1:{proxy.port}")
        self_signed(proxy.directory / "certificates")
        with proxy:
            yield proxy, node, port


async def test_wss_with_the_certificate_and_a_page_of_the_same_host(
    with_tls: tuple[NginxServer, NodeServer, int],
) -> None:
    proxy, _, port = with_tls
    trust = ssl.create_default_context(cafile=proxy.directory / "certificates" / "fullchain.pem")
    url = f"wss://localhost:{port}/ws?user=ann"
    async with connect(url, ssl=trust, origin=f"https://localhost:{port}", proxy=None) as client:  # type: ignore[arg-type]
        welcome = json.loads(await client.recv())
        assert (welcome["op"], welcome["user_id"]) == ("welcome", "ann")
        # A renewed certificate needs a reload; who is connected stays, who comes sees the new one.
        old = trust
        renewed = self_signed(proxy.directory / "certificates")
        trust = ssl.create_default_context(cafile=renewed)
        proxy.reload()

        async def accepted() -> bool:
            with contextlib.suppress(ssl.SSLError):
                async with connect(url, ssl=trust, proxy=None) as newcomer:
                    return bool(await newcomer.recv())
            return False

        await eventually(accepted)
        with pytest.raises(ssl.SSLError):
            await connect(url, ssl=old, proxy=None)
        await client.send('{"op":"ping"}')
        async with asyncio.timeout(30):
            while json.loads(await client.recv())["op"] != "pong":
                pass  # who came


async def test_plain_http_is_sent_to_https_and_old_tls_is_refused(
    with_tls: tuple[NginxServer, NodeServer, int],
) -> None:
    proxy, _, port = with_tls
    async with httpx.AsyncClient(verify=False) as http:
        moved = await http.get(f"{proxy.http_url}/demo?x=1")
        assert (moved.status_code, moved.headers["location"]) == (308, "https://127.0.0.1/demo?x=1")
        secure = await http.get(f"https://127.0.0.1:{port}/healthz")
        assert secure.headers["strict-transport-security"] == "max-age=31536000"
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain)
