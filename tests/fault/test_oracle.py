"""T1: 200 clients on three nodes of one Redis, while connections are cut, nodes killed and subscribers thrown out.

Every client's log must be contiguous and equal to what the publishers were told. Redis itself stays up with its data,
and nobody is away longer than the history reaches, so there is no excuse for a single reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import pytest
from roomcast_client import Message, OutcomeUnknown, Reset, Room, Roomcast

from tests.support.node import NodeServer
from tests.support.oracle import Follower, Oracle
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

NODES = 3
CLIENTS = 200
ROOMS = 8
PUBLISHERS = 16
"""Of the clients, two a room."""
PUBLISH_EVERY_S = 0.2
FAULT_EVERY_S = 0.4
"""On average."""
CUT_IN_FLIGHT = 0.05
"""Of the publishes: the connection is cut when the message is on its way, so that it must be sent again."""
CATCH_UP_S = 45.0
"""Longer than the longest back-off of a client that had bad luck many times in a row (30 s)."""


class Member(NamedTuple):
    client: Roomcast
    room: Room
    follower: Follower


class Run:
    """One run: the world it happens in, what was recorded, how often what was done."""

    weights: ClassVar[dict[str, int]] = {"cut": 10, "cut many": 3, "throw out": 3, "kill": 3}
    """How often which fault, to each other."""

    def __init__(self, nodes: list[NodeServer], servers: list[RedisServer], seed: int) -> None:
        print(f"\nORACLE_SEED={seed} repeats the choice of faults")
        self.nodes = nodes
        self.servers = servers
        self.chance = random.Random(seed)
        self.oracle = Oracle()
        self.members: list[Member] = []
        self.faults: Counter[str] = Counter()
        self.over = asyncio.Event()
        self.all_kinds = asyncio.Event()

    async def enter(self, number: int) -> Member:
        """One more client, on the node of its turn; after every cut it tries the next node."""
        count = len(self.nodes)
        urls = [self.nodes[(number + turn) % count].ws_url for turn in range(count)]
        client = await Roomcast(urls, user=f"u{number}", open_timeout_s=20).__aenter__()
        room = await client.join(f"room-{number % ROOMS}")
        assert room.position is not None
        follower = self.oracle.follow(f"u{number}", room.name, room.position)
        return Member(client, room, follower)

    async def read(self, member: Member) -> None:
        async for event in member.room.events():
            if isinstance(event, Message | Reset):
                member.follower.seen.append(event)

    async def publish(self, number: int) -> None:
        """A message, its ack, a pause, until the end."""
        count = 0
        while not self.over.is_set():
            count += 1
            cut = self.chance.random() < CUT_IN_FLIGHT
            await self.publish_one(self.members[number], f"{number}:{count}", cut=cut)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), PUBLISH_EVERY_S)

    async def publish_one(self, member: Member, data: str, *, cut: bool = False) -> None:
        room = member.room
        try:
            sending = asyncio.ensure_future(room.send(data))
            if cut:
                await asyncio.sleep(self.chance.uniform(0, 0.004))  # before, with or after the frame, or after the ack
                member.client.reconnect()
                self.faults["cut in flight"] += 1
            ack = await sending
        except OutcomeUnknown:
            self.oracle.in_doubt(room.name, data)
            self.faults["publishes without an ack"] += 1
        else:
            self.oracle.acked(room.name, data, ack)

    async def make_trouble(self) -> None:
        """Each kind once at least, the rest as it falls."""
        first = list(self.weights)
        while not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), self.chance.uniform(0, 2 * FAULT_EVERY_S))
            kind = first.pop() if first else self.chance.choices(list(self.weights), list(self.weights.values()))[0]
            self.faults[kind] += 1
            await self.make(kind)
            if not first:
                self.all_kinds.set()

    async def make(self, kind: str) -> None:
        if kind == "cut":
            self.chance.choice(self.members).client.reconnect()
        elif kind == "cut many":
            for member in self.chance.sample(self.members, CLIENTS // 10):
                member.client.reconnect()
        elif kind == "throw out":
            await asyncio.to_thread(self.throw_out)
        else:
            await self.chance.choice(self.nodes).restart()

    def throw_out(self) -> None:
        for server in self.servers:
            server.command("CLIENT", "KILL", "TYPE", "pubsub")


async def run_oracle(duration_s: float, seed: int) -> None:
    with RedisServer() as server:
        await run_on(server.url, lambda nodes: Run(nodes, [server], seed), duration_s)


async def run_on(
    broker: str, make_run: Callable[[list[NodeServer]], Run], duration_s: float, count: int = NODES
) -> None:
    """So many nodes on this broker, 200 clients, the storm, and the judgement."""
    with contextlib.ExitStack() as stack:
        options = {"requests_per_s": 1000, "requests_burst": 2000}
        nodes = [NodeServer(broker=broker, **options) for _ in range(count)]
        for node in nodes:
            await asyncio.to_thread(stack.enter_context, node)
        run = make_run(nodes)
        run.members += await asyncio.gather(*(run.enter(number) for number in range(CLIENTS)))
        try:
            await storm(run, duration_s)
        finally:
            await asyncio.gather(*(member.client.close() for member in run.members))
        crashed = [line for node in nodes for line in node.log.splitlines() if "Traceback" in line]
        assert not crashed, crashed[:3]


async def until_enough(run: Run, duration_s: float) -> None:
    """So long, and until every kind of fault was there: on a busy machine a failover alone may take its time."""
    await asyncio.sleep(duration_s)
    await asyncio.wait_for(run.all_kinds.wait(), CATCH_UP_S)


async def storm(run: Run, duration_s: float) -> None:
    readers = [asyncio.create_task(run.read(member)) for member in run.members]
    work = [asyncio.create_task(run.publish(number)) for number in range(PUBLISHERS)]
    work.append(asyncio.create_task(run.make_trouble()))
    enough = asyncio.create_task(until_enough(run, duration_s))
    done, _ = await asyncio.wait([*work, *readers, enough], return_when=asyncio.FIRST_COMPLETED)
    for task in done - {enough}:
        raise AssertionError(f"{task} ended before its time") from task.exception()
    await enough
    run.over.set()
    await asyncio.gather(*work)
    # A last message for every room (its members are every ROOMS-th client): what is before it in the log is settled.
    await asyncio.gather(*(run.publish_one(run.members[number], f"{number}:end") for number in range(ROOMS)))
    with contextlib.suppress(AssertionError):  # the check says it better
        await eventually(lambda: not run.oracle.behind(), CATCH_UP_S)
    followers = run.oracle.followers
    deliveries, resets = sum(f.messages for f in followers), sum(f.resets for f in followers)
    print(
        f"{duration_s:g} s: {run.oracle.publishes} publishes acknowledged ({run.oracle.publishes / duration_s:.0f}/s), "
        f"{deliveries} deliveries ({deliveries / duration_s:.0f}/s), {resets} resets; {dict(run.faults)}"
    )
    behind = run.oracle.behind()
    for member in run.members:
        if member.follower in behind:
            print(f"{member.follower.name} is behind; connected: {member.client.connected}")
    run.oracle.check()
    assert resets == 0
    assert run.oracle.publishes > duration_s * PUBLISHERS / 4, "too few publishes to mean anything"


def a_seed() -> int:
    return int(os.environ.get("ORACLE_SEED") or random.SystemRandom().randrange(10**9))


@pytest.mark.system
@pytest.mark.redis
@pytest.mark.timeout(180)
async def test_no_client_misses_repeats_or_misorders_a_message_in_thirty_seconds_of_faults() -> None:
    await run_oracle(30, a_seed())


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.redis
@pytest.mark.timeout(900)
async def test_no_client_misses_repeats_or_misorders_a_message_in_ten_minutes_of_faults() -> None:
    await run_oracle(600, a_seed())
