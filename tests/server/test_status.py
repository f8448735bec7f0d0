"""The status page from outside: what is there without a key, with a wrong one, and with the right one."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from server import ticket
from tests.api.calls import KEYS, SECRETS, Answer, Caller, call_now
from tests.support.chat import node_here

PROTOCOL = "roomcast.status.v1"
FILES = ("/status", "/status/status.css", "/status/status.js", "/status/cluster.js")


def feed(port: int, ticket: str | None, **options: Any) -> connect:
    offered = [PROTOCOL] if ticket is None else [PROTOCOL, f"roomcast.token.{ticket}"]
    protocols = [Subprotocol(each) for each in offered]
    return connect(f"ws://127.0.0.1:{port}/status/feed", subprotocols=protocols, **options)


def page(port: int, path: str) -> Answer:
    return call_now(port, "GET", path, None, {})


async def view_of(websocket: ClientConnection) -> dict[str, Any]:
    view: dict[str, Any] = orjson.loads(await websocket.recv())
    return view


async def closed_with(websocket: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed):
        await websocket.recv()
    assert websocket.close_code is not None
    return websocket.close_code


async def test_without_keys_there_is_no_page() -> None:
    async with node_here("fast") as node:
        for path in FILES:
            assert (await asyncio.to_thread(page, node.served.port, path)).status == 404
        with pytest.raises(InvalidStatus):
            async with feed(node.served.port, None):
                pass


async def test_the_page_says_nothing_without_a_key_and_may_load_nothing_from_elsewhere() -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        for path in FILES:
            answer = await asyncio.to_thread(page, node.served.port, path)
            assert answer.status == 200
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
            assert "frame-ancestors 'none'" in policy and "unsafe" not in policy
            for word in (b"innerHTML", b"outerHTML", b"insertAdjacent", b"document.write", b"eval(", b" style="):
                assert word not in answer.body, word


@pytest.mark.parametrize("lane", ["fast", "plain"])
async def test_a_ticket_opens_the_feed(lane: Any) -> None:
    async with node_here(lane, api_keys=KEYS) as node:
        issued = (await Caller(node.served.port, SECRETS["viewer"]).post("/status/ticket")).ok
        assert issued["expires_in_s"] == ticket.VALID_S
        async with feed(node.served.port, issued["ticket"]) as websocket:
            assert websocket.subprotocol == PROTOCOL
            view = await view_of(websocket)
            assert [sample["node"] for sample in view["nodes"]] == [view["here"]] == [node.hub.broker.node_id]
            assert view["nodes"][0]["connections"] == 0  # who watches is no client
            await websocket.send("it has nothing to say")
            assert await closed_with(websocket) == 1000


@pytest.mark.parametrize("given", [None, "", "nonsense", "viewer.9999999999.00.00", SECRETS["viewer"]])
async def test_without_a_good_ticket_nothing_is_told(given: str | None) -> None:
    async with node_here("fast", api_keys=KEYS) as node, feed(node.served.port, given) as websocket:
        assert await closed_with(websocket) == 4001


async def test_a_key_that_may_only_publish_gets_none_and_a_wrong_one_neither() -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        assert (await Caller(node.served.port, SECRETS["backend"]).post("/status/ticket")).problem == (403, "forbidden")
        assert (await Caller(node.served.port, "w" * 40).post("/status/ticket")).problem == (401, "unauthorized")


async def test_a_foreign_page_may_not_open_the_feed() -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        issued = (await Caller(node.served.port).post("/status/ticket")).ok["ticket"]
        with pytest.raises(InvalidStatus) as refused:
            async with feed(node.served.port, issued, origin="http://evil.example"):
                pass
        assert refused.value.response.status_code == 403


async def test_a_ticket_of_one_node_opens_the_feed_of_another() -> None:
    """Behind a proxy the page's request and its handshake may reach different nodes."""
    async with node_here("fast", api_keys=KEYS) as one, node_here("fast", api_keys=KEYS) as other:
        issued = (await Caller(one.served.port, SECRETS["viewer"]).post("/status/ticket")).ok["ticket"]
        async with feed(other.served.port, issued) as websocket:
            assert (await view_of(websocket))["nodes"]
