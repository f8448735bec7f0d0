"""What becomes of messages when nodes and clients come and go: rows A3, A10, C21, C30, C34 and C37 of the catalogue.
Redis stays up with its data: every message once, in one order, and the same acknowledgement for the same key.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter

import pytest
from roomcast_client import Message, OutcomeUnknown, Reset, Room, Roomcast

from tests.support.cluster import Traffic, cluster
from tests.support.figures import note
from tests.support.namespaces import private_network
from tests.support.node import NodeServer
from tests.support.oracle import Oracle
from tests.support.peer import Peer
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

pytestmark = [pytest.mark.redis, pytest.mark.system]


async def test_a_publish_whose_ack_died_with_its_node_is_found_again_by_its_key() -> None:
    """A3: the entry is in the log, the reply of Redis never reaches the node, the node is killed."""
    with RedisServer() as server:
        async with (
            TcpProxy(server.port).running() as way,
            cluster(
                2,
                redis_server=server,
                broker=[way.url, server.url],
                settings={"heartbeat_s": 10, "lease_s": 30},
                by_log=True,
            ) as world,
        ):
            doomed, safe = world.nodes
            author = await world.peer(doomed, "r")
            reader = await world.peer(safe, "r")
            for number in range(5):
                await world.said(author, "r", f"before {number}")
            await author.until(lambda: author.views["r"].position.offset == 5)
            await quiet(doomed)
            way.hold_down()
            lost = author.post("message", room="r", data="once", key="the-key")
            await reader.until(lambda: reader.views["r"].data[-1] == "once")
            doomed.kill()
            with pytest.raises(ConnectionError):
                await lost
            killed_s = time.monotonic()
            [resumed] = await author.resume(safe.ws_url)
            assert resumed["recovered"] is True
            ack = await author.ask("message", room="r", data="once", key="the-key")
            note("A3 lost ack: found again after", time.monotonic() - killed_s, "s")
            assert ack["ok"] and (ack["epoch"], ack["offset"], ack["tag"]) == reader.views["r"].position
            last = await world.said(author, "r")
            for one in (author, reader):
                await one.until(lambda one=one: one.views["r"].position.offset == last.offset)  # type: ignore[misc]
                assert one.views["r"].data.count("once") == 1
            world.nodes.remove(doomed)
            doomed.__exit__()


async def quiet(node: NodeServer) -> None:
    """Nothing is on its way between the node and Redis: one more call will be sent at once."""

    async def unchanged() -> bool:
        before = node.metric("roomcast_broker_commands_total")
        await asyncio.sleep(0.1)
        return node.metric("roomcast_broker_commands_total") == before

    _: bool = await eventually(unchanged, 10)


async def test_the_same_key_on_two_nodes_at_once_is_one_message() -> None:
    """C30: two connections of one session."""
    async with cluster(2, by_log=True) as world:
        one, other = [await world.peer(node) for node in world.nodes]
        other.user, other.session = one.user, one.session
        await other.connect(world.nodes[1].ws_url)
        assert other.session == one.session
        for peer in (one, other):
            assert (await peer.join("r"))["ok"]
        pairs = []
        for number in range(100):
            tries = [peer.post("message", room="r", data=number, key=f"k{number}") for peer in (one, other)]
            pairs.append(tries if number % 2 else tries[::-1])
        for first, second in pairs:
            a, b = await first, await second
            assert a["ok"] and b["ok"]
            assert (a["epoch"], a["offset"], a["tag"]) == (b["epoch"], b["offset"], b["tag"])
        for peer in (one, other):
            await peer.until(lambda peer=peer: peer.views["r"].position.offset == 100)  # type: ignore[misc]
            assert sorted(peer.views["r"].data) == list(range(100))


async def test_whoever_publishes_and_vanishes_has_said_it_once_or_not_at_all() -> None:
    """C34: the socket is reset right after the frame; a retry with the same key settles it."""
    async with cluster(2, by_log=True) as world:
        reader = await world.peer(world.nodes[0], "r")
        vanishing = [await world.peer(world.nodes[number % 2], "r") for number in range(40)]
        for number, one in enumerate(vanishing):
            one.post("message", room="r", data=number, key="last-words")
            for _ in range(number % 4):
                await asyncio.sleep(0)
            await one.abort()
        await world.said(reader, "r", "settled")
        await reader.until(lambda: "settled" in reader.views["r"].data)
        at_first = Counter(reader.views["r"].data)
        assert set(at_first.values()) == {1}
        for number, one in enumerate(vanishing):
            [resumed] = await one.resume(world.nodes[(number + 1) % 2].ws_url)
            assert resumed["recovered"] is True
            assert (await one.ask("message", room="r", data=number, key="last-words"))["ok"]
        last = await world.said(reader, "r", "end")
        await reader.until(lambda: reader.views["r"].position.offset == last.offset)
        assert Counter(reader.views["r"].data) == Counter([*range(40), "settled", "end"])
        note("C34 publish and vanish: of 40 arrived at first", len(at_first) - 1, "")


async def test_joins_leaves_and_publishes_race_on_three_nodes() -> None:
    """C21: a stream begins after the place that its join reply names, has no hole, and ends with the reply to the
    leave. (The peers check each frame.)"""
    async with (
        cluster(3, settings={"linger_s": 0.05, "history": "*=20000"}, by_log=True) as world,
        Traffic(world, "r", every_s=0.002).running() as traffic,
    ):
        chance = random.Random(21)
        over = asyncio.Event()
        rounds = Counter[str]()

        async def comes_and_goes(one: Peer, alone: str) -> None:
            while not over.is_set():
                for room in ("r", alone):
                    how = chance.choice(["join", "join twice", "join and leave at once"])
                    rounds[how] += 1
                    replies = [one.post("join", room=room)]
                    if how == "join twice":
                        replies.append(one.post("join", room=room))
                    elif how == "join and leave at once":
                        replies.append(one.post("leave", room=room))
                    assert all([(await reply)["ok"] for reply in replies])
                    if how != "join and leave at once":
                        await one.ask("message", room=room, data=f"{one.user} {next(numbers)}")
                await asyncio.sleep(chance.uniform(0, 0.03))
                for room in ("r", alone):
                    assert (await one.ask("leave", room=room))["ok"]
                await asyncio.sleep(chance.uniform(0, 0.1))

        numbers = itertools.count()
        peers = [await world.peer(node) for node in world.nodes for _ in range(4)]
        # The rooms of three, one on each node, come and go with their subscriptions.
        racing = [asyncio.create_task(comes_and_goes(one, f"alone-{i % 4}")) for i, one in enumerate(peers)]
        await traffic.progress(600, 20)
        over.set()
        await asyncio.gather(*racing)
        assert traffic.resets == [0, 0, 0]
        assert min(rounds.values()) > 20, rounds
        for one in peers:
            one.check()
            assert (await one.join("r", history=5))["ok"]  # so that the judge has something to compare


async def test_nodes_that_restart_one_after_another_under_load_cost_nobody_a_message() -> None:
    """A10: every node drains and comes back; real clients follow what they are told."""
    async with cluster(3, settings={"drain_s": 0.5}) as world:
        urls = [node.ws_url for node in world.nodes]
        oracle = Oracle()
        over = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            rooms: list[Room] = []
            for number in range(30):
                turned = urls[number % 3 :] + urls[: number % 3]
                client = await stack.enter_async_context(Roomcast(turned, user=f"c{number}"))
                rooms.append(await client.join(f"room-{number % 3}"))
            followers = [
                oracle.follow(f"c{i}", room.name, room.position) for i, room in enumerate(rooms) if room.position
            ]

            async def read(number: int) -> None:
                async for event in rooms[number].events():
                    if isinstance(event, Message | Reset):
                        followers[number].seen.append(event)

            async def publish(number: int) -> None:
                for count in itertools.count():
                    data = f"{number}:{count}"
                    try:
                        oracle.acked(rooms[number].name, data, await rooms[number].send(data))
                    except OutcomeUnknown:
                        oracle.in_doubt(rooms[number].name, data)
                    if over.is_set():
                        return
                    await asyncio.sleep(0.02)

            readers = [asyncio.create_task(read(number)) for number in range(len(rooms))]
            publishers = [asyncio.create_task(publish(number)) for number in range(9)]
            for node in world.nodes:
                started_s = time.monotonic()
                assert await node.stopped() == 0
                note("A10 rolling restart: a node drained in", time.monotonic() - started_s, "s")
                node.launch()
                await node.wait_ready()
            over.set()
            await asyncio.gather(*publishers)
            with contextlib.suppress(AssertionError):  # the check says it better
                await eventually(lambda: not oracle.behind(), 10)
            oracle.check()
            assert sum(follower.resets for follower in followers) == 0
            assert oracle.publishes > 300
            for task in readers:
                task.cancel()
            await asyncio.wait(readers)


async def test_a_bad_mobile_link_costs_patience_and_no_message() -> None:
    """C37: 150 ms each way, every thirtieth packet lost, for a client that reads and writes."""
    with private_network() as network:
        async with (
            cluster(2) as world,
            Traffic(world, "r").running() as traffic,
            TcpProxy(world.nodes[0].port).running() as link,
        ):
            mobile = await world.peer(world.nodes[0], "r", url=f"ws://127.0.0.1:{link.port}/ws")
            link.delay_s = 0.15
            network.lose(link.port, 0.03)
            took_s = []
            for number in range(15):
                start_s = time.monotonic()
                await world.said(mobile, "r", f"mobile {number}")
                took_s.append(time.monotonic() - start_s)
            await traffic.progress(50)
            last = await world.said(next(one for one in world.members("r") if one is not mobile), "r")
            await world.everybody_got("r", last, 15)
            note("C37 bad mobile link: ack, worst of 15", max(took_s), "s")
            assert mobile.close_code is None and mobile.views["r"].resets == 0
            await mobile.close()
