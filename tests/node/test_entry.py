"""Who gets in, as whom, and what those hear who do not. The same on both lanes."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from server.auth import Credentials
from server.identity import ANONYMOUS, Identity
from tests.support.chat import NodeHere, node_here
from tests.support.served import handshake, raw_client

SECRET = "s" * 32


def token(lifetime_s: float = 60.0, **claims: Any) -> str:
    return jwt.encode({"exp": time.time() + lifetime_s, **claims}, SECRET, algorithm="HS256")


async def welcomed(node: NodeHere, query: str, **options: Any) -> Any:
    """The user id of the welcome."""
    async with node.connected(query, **options) as chatter:
        welcome = await chatter.frame()
        assert welcome["op"] == "welcome"
        return welcome["user_id"]


async def turned_away(node: NodeHere, query: str, **options: Any) -> int:
    """The close code of a connection that gets no frame at all."""
    async with node.connected(query, **options) as chatter:
        code = await chatter.closed()
        assert not chatter.kept and chatter.ws.close_reason
        return code


async def test_dev_users_are_whom_the_query_names(lane: str) -> None:
    async with node_here(lane) as node:
        for query, user in (
            ("user=alice", "alice"),
            ("user=42", 42),
            ("user=042", "042"),
            ("user=0", 0),
            ("user=a%40b.example", "a@b.example"),
            ("user=alice&user=bob", "bob"),
            ("", None),
        ):
            assert await welcomed(node, query) == user
        for query in ("user=a%20b", "user=" + "x" * 129, "user=__system"):
            assert await turned_away(node, query) == 4001


async def test_tokens_come_by_query_header_or_subprotocol(lane: str) -> None:
    async with node_here(lane, secret=SECRET) as node:
        good = token(sub="7", user_id=42)
        assert await welcomed(node, f"token={good}") == 42
        assert await welcomed(node, "", additional_headers={"Authorization": f"Bearer {good}"}) == 42
        offered = [Subprotocol("roomcast.token." + good), Subprotocol("roomcast.json.v1")]
        async with node.connected("", subprotocols=offered) as chatter:
            assert (await chatter.frame())["user_id"] == 42
            assert chatter.ws.subprotocol == "roomcast.json.v1", "never the token"


async def test_without_good_credentials_it_is_4001_and_no_welcome(lane: str) -> None:
    async with node_here(lane, secret=SECRET) as node:
        other = jwt.encode({"exp": time.time() + 60, "sub": "x"}, "t" * 32, algorithm="HS256")
        unsigned = jwt.encode({"exp": time.time() + 60, "sub": "x"}, "", algorithm="none")
        for query in (
            "",
            "user=alice",
            "token=",
            "token=nonsense",
            f"token={other}",
            f"token={unsigned}",
            f"token={token(-60, sub='x')}",
            f"token={token()}",
            f"token={token(sub='not a user id')}",
        ):
            assert await turned_away(node, query) == 4001, query
        assert node.hub.counts.connections_total == 0


async def test_an_application_of_its_own_decides_alone(lane: str) -> None:
    async def authenticate(given: Credentials) -> Identity | None:
        if "open" in given.query:
            return ANONYMOUS
        return Identity('"someone"') if given.headers.get("x-key") == "right" else None

    async with node_here(lane, authenticate=authenticate) as node:
        assert await welcomed(node, "user=alice", additional_headers={"X-Key": "right"}) == "someone"
        assert await welcomed(node, "open=1") is None
        assert await turned_away(node, "user=alice") == 4001


async def test_anonymous_connections_read_and_publish_but_do_not_type(lane: str) -> None:
    async with node_here(lane) as node, node.connected("") as nobody:
        assert (await nobody.frame())["user_id"] is None
        await nobody.ok("join", room="r")
        await nobody.ok("message", room="r", data=1)
        assert (await nobody.event())["user_id"] is None
        assert await nobody.refused("typing", room="r", typing=True) == "forbidden"
        assert await nobody.refused("receipt", room="r", message_id=1, status="read") == "forbidden"


ORIGINS = {
    "none at all": (None, False, (), 101),
    "the host itself": ("http://127.0.0.1:{port}", False, (), 101),
    "the host itself by TLS on another port": ("https://127.0.0.1", False, (), 403),
    "another host": ("https://evil.example", False, (), 403),
    "another host on a dev node": ("https://evil.example", True, (), 403),
    "null": ("null", True, (), 403),
    "a listed host": ("https://app.example", False, ("https://app.example",), 101),
    "a sub-domain of a listed one": ("https://a.app.example", False, ("https://*.app.example",), 101),
    "one that only ends alike": ("https://evilapp.example", False, ("https://*.app.example",), 403),
    "localhost on a dev node": ("http://localhost:3000", True, (), 101),
    "localhost elsewhere": ("http://localhost:3000", False, (), 403),
}


@pytest.mark.parametrize(("origin", "dev", "origins", "status"), ORIGINS.values(), ids=ORIGINS)
async def test_a_foreign_origin_is_403_before_the_upgrade(
    lane: str, origin: str | None, dev: bool, origins: tuple[str, ...], status: int
) -> None:
    settings: dict[str, Any] = {"dev": True} if dev else {"secret": SECRET}
    async with node_here(lane, origins=origins, **settings) as node:
        port = node.served.port
        given = Origin(origin.format(port=port)) if origin else None
        query = f"token={token(sub='x')}" if not dev else "user=x"
        try:
            assert await welcomed(node, query, origin=given) == "x"
        except InvalidStatus as refused:
            assert refused.response.status_code == status == 403
            assert b"ROOMCAST_ORIGINS" in (refused.response.body or b"")
            assert node.hub.counts.connections_total == 0
        else:
            assert status == 101


async def test_two_origins_are_none_that_is_allowed(lane: str) -> None:
    async with node_here(lane, origins=("https://app.example",)) as node:
        both = [("Origin", "https://evil.example"), ("Origin", "https://app.example")]
        with pytest.raises(InvalidStatus) as refused:
            await welcomed(node, "user=x", additional_headers=both)
        assert refused.value.response.status_code == (403 if lane == "fast" else 400), "uvicorn's own class is stricter"


async def test_other_paths_take_no_websocket(lane: str) -> None:
    async with node_here(lane) as node:
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"{node.served.url}/elsewhere", proxy=None):
                pass
        assert refused.value.response.status_code == 403


async def test_no_compression_is_agreed_on(lane: str) -> None:
    async with node_here(lane) as node:
        offer = handshake("/ws?user=a", add=("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",))
        async with raw_client(node.served.port, offer) as client:
            status, head = await client.head()
            assert status == 101 and b"extensions" not in head.lower()
