"""The whole way: real clients through the nginx of deploy/ to two real nodes on a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.support.cluster import Cluster, cluster
from tests.support.nginx import NginxServer
from tests.support.peer import Frame, Peer

pytestmark = [pytest.mark.redis, pytest.mark.nginx, pytest.mark.system]


@contextlib.asynccontextmanager
async def behind_nginx(**settings: Any) -> AsyncIterator[tuple[Cluster, NginxServer]]:
    async with cluster(2, by_log=True, settings=settings) as world:
        with NginxServer([node.port for node in world.nodes]) as proxy:
            yield world, proxy
            await asyncio.gather(*(one.close() for one in world.peers))


async def clients(world: Cluster, proxy: NginxServer, count: int, *rooms: str) -> list[Peer]:
    return [await world.peer(world.nodes[0], *rooms, url=proxy.ws_url) for _ in range(count)]


def heard(one: Peer, kind: str) -> list[Frame]:
    return [frame for frame in one.frames if frame.get("type") == kind]


async def everybody_said(members: list[Peer], room: str, data: str) -> None:
    """The first one says it and all have got it: what was on its way before has arrived."""
    reply = await members[0].ask("message", room=room, data=data)
    for one in members:
        await one.until(lambda one=one: one.views[room].position.offset >= reply["offset"])  # type: ignore[misc]


async def test_all_members_get_every_message_in_one_order() -> None:
    async with behind_nginx() as (world, proxy):
        members = await clients(world, proxy, 8, "chat", "other")
        nodes = Counter(frame["node"] for one in members for frame in one.frames if frame["op"] == "welcome")
        assert sorted(nodes.values()) == [4, 4], "clients of both nodes"
        posts = [
            one.post("message", room=room, data=f"{one.user} {number}")
            for number in range(50)
            for one in members
            for room in ("chat", "other")
        ]
        acks = [await post for post in posts]
        assert all(ack["ok"] for ack in acks)
        for room in ("chat", "other"):
            for one in members:
                await one.until(lambda one=one, room=room: one.views[room].position.offset == 400)  # type: ignore[misc]
            [order] = {tuple(one.views[room].data) for one in members}
            for one in members:  # each client's own messages keep their order
                own = [text for text in order if text.startswith(one.user + " ")]
                assert own == [f"{one.user} {number}" for number in range(50)]
            assert all(one.views[room].resets == 0 for one in members)


async def test_typing_and_receipts_reach_the_others_only() -> None:
    async with behind_nginx() as (world, proxy):
        members = await clients(world, proxy, 4, "chat")
        [stranger] = await clients(world, proxy, 1, "other")
        await everybody_said(members, "chat", "hello")
        speaker, others = members[1], [members[0], *members[2:]]
        assert (await speaker.ask("typing", room="chat", typing=True))["ok"]
        assert (await speaker.ask("receipt", room="chat", message_id=1, status="read"))["ok"]
        for one in others:
            await one.until(lambda one=one: heard(one, "typing") and heard(one, "receipt"))  # type: ignore[misc]
            typing = heard(one, "typing")[0]
            assert (typing["room"], typing["user_id"], typing["typing"]) == ("chat", speaker.user, True)
            [receipt] = heard(one, "receipt")
            assert (receipt["user_id"], receipt["message_id"], receipt["status"]) == (speaker.user, 1, "read")
        await everybody_said(members, "chat", "settled")
        assert heard(speaker, "typing") == heard(speaker, "receipt") == []
        assert heard(stranger, "typing") == heard(stranger, "receipt") == heard(stranger, "message") == []


async def test_a_leave_stops_delivery() -> None:
    async with behind_nginx() as (world, proxy):
        members = await clients(world, proxy, 4, "chat")
        leaver = members.pop()
        await everybody_said([*members, leaver], "chat", "before")
        assert (await leaver.ask("leave", room="chat"))["ok"]
        count = len(leaver.frames)
        for number in range(20):
            await everybody_said(members, "chat", f"after {number}")
        assert (await leaver.ask("leave", room="chat"))["ok"]  # all that was sent to it has arrived
        assert [frame["op"] for frame in leaver.frames[count:]] == ["reply"]
        refused = await leaver.ask("message", room="chat", data="from outside")
        assert (refused["ok"], refused["code"]) == (False, "not_joined")


LIES = {"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
OUTSIDE = "127.0.0.9"
"""The client's address; nginx itself comes to the nodes from 127.0.0.1."""


async def address_of(url: str, source: str) -> str:
    """What the node takes a client from this source address for, which claims to be somebody else."""
    async with connect(
        url.removesuffix("/ws") + "/address?user=u", additional_headers=LIES, local_addr=(source, 0), proxy=None
    ) as client:
        return str(await client.recv())


async def test_the_node_believes_nginx_about_a_client_s_address_and_the_client_never() -> None:
    async with behind_nginx(trusted_proxies="127.0.0.1", app="tests.support.address_app:hub") as (world, proxy):
        assert await address_of(proxy.ws_url, OUTSIDE) == OUTSIDE
        assert await address_of(world.nodes[0].ws_url, OUTSIDE) == OUTSIDE
    async with cluster(1, settings={"app": "tests.support.address_app:hub"}) as world:  # nobody is trusted
        assert await address_of(world.nodes[0].ws_url, "127.0.0.1") == "127.0.0.1"
