"""Resuming when things go wrong: rows A1, C24, C27, C28 and C29 of the fault catalogue, and T4. ``recovered: true``
means that nothing is missing; whatever cannot be told for sure is ``recovered: false``.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import jwt
import pytest
from roomcast_client import Position

from tests.support.busy import busy_s
from tests.support.cluster import SCALED, Cluster, Traffic, cluster
from tests.support.figures import note
from tests.support.node import NodeServer
from tests.support.peer import Peer
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.redis, pytest.mark.system]

PATIENT: dict[str, Any] = {"heartbeat_s": 10, "lease_s": 30}
"""For tests that hold something up: the probe must not interfere."""


async def publish(one: Peer, room: str, count: int, window: int = 500) -> None:
    """So many messages, numbered, all acknowledged."""
    for start in range(0, count, window):
        posts = [one.post("message", room=room, data=i) for i in range(start, min(start + window, count))]
        assert all([(await post)["ok"] for post in posts])


async def crash_under(clients: int, jitter_s: float) -> None:
    """A1: one of two nodes is killed while messages flow; its clients go to the other one."""
    async with cluster(2) as world, Traffic(world, "r", nodes=world.nodes[1:]).running() as traffic:
        doomed, safe = world.nodes
        peers = await asyncio.gather(*(world.peer(doomed, "r") for _ in range(clients)))
        await traffic.progress()
        doomed.kill()
        killed_s = time.monotonic()
        chance = random.Random(1)

        async def comes_back(one: Peer) -> float:
            await asyncio.sleep(chance.uniform(0, jitter_s))
            start_s = time.monotonic()
            [reply] = await one.resume(safe.ws_url)
            assert reply["recovered"] is True, reply
            return time.monotonic() - start_s

        took_s = await asyncio.gather(*(comes_back(one) for one in peers))
        note(f"A1 {clients} clients of a killed node: all back after", time.monotonic() - killed_s, "s")
        note(f"A1 {clients} clients: slowest reconnect and resume", max(took_s), "s")
        await traffic.progress()
        assert traffic.resets == [0] * (clients + 1)


async def test_a_hundred_clients_of_a_killed_node_miss_nothing() -> None:
    await crash_under(100, jitter_s=0.5)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_thousand_clients_of_a_killed_node_miss_nothing() -> None:
    await crash_under(1000, jitter_s=3)


def forged(good: Position, other: Position) -> list[tuple[str, dict[str, Any]]]:
    """What clients may claim, with the reason why it must not count."""
    epoch, offset, tag = good
    return [
        ("2^53 - 1", {"epoch": epoch, "offset": 2**53 - 1, "tag": tag}),
        ("2^53", {"epoch": epoch, "offset": 2**53, "tag": tag}),
        ("2^60", {"epoch": epoch, "offset": 2**60, "tag": tag}),
        ("2^63 - 1", {"epoch": epoch, "offset": 2**63 - 1, "tag": tag}),
        ("negative", {"epoch": epoch, "offset": -1, "tag": tag}),
        ("-2^63", {"epoch": epoch, "offset": -(2**63), "tag": tag}),
        ("one ahead", {"epoch": epoch, "offset": 31, "tag": tag}),
        ("another epoch", {"epoch": "0" * len(epoch), "offset": offset, "tag": tag}),
        ("no epoch", {"epoch": "", "offset": offset, "tag": tag}),
        ("another tag", {"epoch": epoch, "offset": offset, "tag": "0" * 16}),
        ("no tag", {"epoch": epoch, "offset": offset, "tag": ""}),
        ("the tag of another offset", {"epoch": epoch, "offset": offset - 1, "tag": tag}),
        ("the beginning with a wrong tag", {"epoch": epoch, "offset": 0, "tag": tag}),
        ("another room's position", other._asdict()),
        ("words of Lua and Redis", {"epoch": "*\r\n", "offset": 3, "tag": "{}$-1"}),
        ("a long epoch", {"epoch": "e" * 1000, "offset": 3, "tag": "t" * 1000}),
        ("other alphabets", {"epoch": "épôche", "offset": 3, "tag": "\u0000"}),
    ]


MALFORMED: list[Any] = [
    *(7, "x", [], {}, {"epoch": "e"}, {"epoch": 1, "offset": 1, "tag": "t"}, {"epoch": "e", "offset": 1, "tag": None}),
    *({"epoch": "e", "offset": offset, "tag": "t"} for offset in ("1", 1.5, True, None, [1])),
]


async def test_forged_positions_get_nothing_and_break_nothing() -> None:
    """C27."""
    async with cluster(1, by_log=True) as world:
        [node] = world.nodes
        author = await world.peer(node, "r", "other")
        await publish(author, "r", 30)
        await publish(author, "other", 30)
        await author.until(lambda: author.views["r"].position.offset == author.views["other"].position.offset == 30)
        good, top = author.views["r"].seen[9].position, author.views["r"].position
        liar = await world.peer(node)
        for why, resume in forged(good, author.views["other"].seen[9].position):
            reply = await liar.ask("join", room="r", resume=resume)
            assert reply["ok"] and reply["recovered"] is False and reply["messages"] == [], why
            assert Position(reply["epoch"], reply["offset"], reply["tag"]) == top, why
            assert (await liar.ask("leave", room="r"))["ok"]
            del liar.views["r"]
        for resume in MALFORMED[:9]:  # a tenth within ten seconds would be 4002
            reply = await liar.ask("join", room="r", resume=resume)
            assert not reply["ok"] and reply["code"] == "bad_request", resume
        other = await world.peer(node)
        for resume in MALFORMED[9:]:
            reply = await other.ask("join", room="r", resume=resume)
            assert not reply["ok"] and reply["code"] == "bad_request", resume
        for count, at in ((20, good), (30, Position(good.epoch, 0, "0"))):
            honest = await world.peer(node)
            reply = await honest.join("r", at)
            assert reply["recovered"] is True and len(reply["messages"]) == count
        assert node.metric("roomcast_broker_reconnects_total") == 0


async def test_a_position_opens_no_room() -> None:
    """C27: a good position of a room that the token does not name."""
    secret = "x" * 32
    claims = {"sub": "u", "exp": 4_000_000_000, "rooms": {"mine:*": ["join", "publish"]}}
    token = jwt.encode(claims, secret, "HS256")
    async with cluster(1, by_log=True) as world:
        author = await world.peer(world.nodes[0], "secret", "mine:r")
        await publish(author, "secret", 3)
        guarded = NodeServer(broker=world.redis.url, secret=secret, **SCALED)
        world.nodes.append(guarded)
        one = Peer("u")
        try:
            guarded.launch()
            await guarded.wait_ready()
            await one.connect(guarded.ws_url, Authorization=f"Bearer {token}")
            start = author.views["secret"].start
            for resume in (start._asdict(), {**start._asdict(), "tag": "nonsense"}, None):
                reply = await one.ask("join", room="secret", **({} if resume is None else {"resume": resume}))
                assert not reply["ok"] and reply["code"] == "forbidden"
            assert (await one.join("mine:r"))["ok"]
            assert "data" not in str([frame for frame in one.frames if frame.get("room") == "secret"])
            await one.close()
            await world.judge(by_log=True)
        finally:
            await one.close()
            world.nodes.remove(guarded)
            guarded.__exit__()


async def test_who_was_away_for_longer_than_the_history_is_told() -> None:
    """C28, and what is just within it comes in pages."""
    async with cluster(1, by_log=True) as world:
        [node] = world.nodes
        author = await world.peer(node, "r")
        start = author.views["r"].position
        await publish(author, "r", 6000)
        await author.until(lambda: author.views["r"].position.offset == 6000)
        top = author.views["r"].position
        late = await world.peer(node)
        reply = await late.join("r", start)
        assert reply["recovered"] is False and reply["messages"] == []
        assert Position(reply["epoch"], reply["offset"], reply["tag"]) == top
        entries = author.views["r"].seen
        within = await world.peer(node)
        reply = await within.ask("join", room="r", resume=entries[4999].position._asdict())
        assert reply["recovered"] is True and reply["more"] is True and len(reply["messages"]) == 500
        reply = await within.join("r", within.views["r"].position)
        assert reply["recovered"] is True and len(reply["messages"]) == 500
        assert within.views["r"].position == top and within.views["r"].data == list(range(5000, 6000))
        await publish(author, "r", 1)
        await late.until(lambda: late.views["r"].data == [0])
        await within.until(lambda: within.views["r"].data[-1] == 0)


async def test_a_client_ahead_of_its_node_is_recovered_from_the_log() -> None:
    """C29, T4: what a node will be sent has not reached it yet, when a client comes that has seen it elsewhere, one
    that joins for the first time, and one that was away."""
    with RedisServer() as server:
        async with (
            TcpProxy(server.port).running() as way,
            cluster(2, redis_server=server, broker=[server.url, way.url], settings=PATIENT, by_log=True) as world,
        ):
            ahead, lagging = world.nodes
            author = await world.peer(ahead, "r", "s")
            member = await world.peer(lagging, "r", "s")
            await publish(author, "r", 10)
            await author.until(lambda: author.views["r"].position.offset == 10)
            await member.until(lambda: member.views["r"].position.offset == 10)
            old = author.views["r"].position
            way.deafen(way.accepted)  # the subscriber's is the last one
            for room in ("r", "s"):
                await publish(author, room, 5)
                await author.until(lambda room=room: author.views[room].position.offset in (15, 5))  # type: ignore[misc]
            assert member.views["r"].position.offset == 10

            newcomer = await world.peer(lagging)
            reply = await newcomer.join("r")
            assert (reply["offset"], reply["recovered"]) == (10, None)
            was_away = await world.peer(lagging)
            reply = await was_away.join("r", author.views["r"].start)
            assert reply["recovered"] is True and len(reply["messages"]) == 10
            mover = await world.peer(lagging)
            reply = await mover.join("r", author.views["r"].position)
            assert reply["recovered"] is True and reply["offset"] == 15 and reply["messages"] == []
            # Its question brought the whole room up to date, before pub/sub did.
            everybody = (member, newcomer, was_away, mover)
            for one in everybody:
                await one.until(lambda one=one: one.views["r"].position.offset == 15)  # type: ignore[misc]
            assert member.views["s"].position.offset == 0

            late = await world.peer(lagging)  # T4 in the room that nobody asked about
            assert (await late.join("s"))["offset"] == 0
            way.undeafen(way.accepted)
            await publish(author, "r", 1)
            for one in everybody:
                await one.until(lambda one=one: one.views["r"].position.offset == 16)  # type: ignore[misc]
                assert one.views["r"].resets == 0
            await late.until(lambda: late.views["s"].data == [0, 1, 2, 3, 4])
            assert old.offset == 10


async def storm(clients: int) -> None:
    """C24: all clients of a room come back at the same moment, having missed 300 messages."""
    async with cluster(1, by_log=True) as world:
        [node] = world.nodes
        author = await world.peer(node, "r")
        peers = await asyncio.gather(*(world.peer(node, "r") for _ in range(clients)))
        await asyncio.gather(*(one.abort() for one in peers))
        await publish(author, "r", 300)
        for one in peers:
            await one.connect(node.ws_url)
        before = calls(world)
        cpu_s = node.metric("process_cpu_seconds_total")
        start_s = time.monotonic()

        async def resume(one: Peer) -> float:
            reply = await one.join("r", one.views["r"].position)
            assert reply["ok"] and reply["recovered"] is True and len(reply["messages"]) >= 300, str(reply)[:300]
            return time.monotonic() - start_s

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(resume(one)) for one in peers]
            posts = [author.post("message", room="r", data=f"meanwhile {i}") for i in range(20)]
        took_s = sorted(task.result() for task in tasks)
        assert all([(await post)["ok"] for post in posts])
        reads = calls(world) - before
        note(f"C24 {clients} clients resume 300 messages at once: all after", took_s[-1], "s")
        note(f"C24 {clients} clients: script calls in Redis meanwhile", reads, "")
        note(
            f"C24 {clients} clients: node CPU per resume",
            1e6 * (node.metric("process_cpu_seconds_total") - cpu_s) / clients,
            "µs",
        )
        for one in peers:
            await one.until(lambda one=one: one.views["r"].position.offset == 320)  # type: ignore[misc]
        assert took_s[int(clients * 0.99)] < 5 + busy_s()
        assert reads < clients / 5 + 50, "one read of the log must serve many"


def calls(world: Cluster) -> int:
    """Scripts that Redis has run."""
    return int(world.redis.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))


async def test_a_storm_of_resumes_reads_the_log_few_times() -> None:
    await storm(200)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_storm_of_a_thousand_resumes_is_over_in_five_seconds() -> None:
    await storm(1000)
