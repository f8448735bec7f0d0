"""The machine runs short of something: memory (A11), file descriptors (A13), CPU (A14)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from loadtests.accounting import rss_bytes
from loadtests.crowd import Crowd
from tests.support.figures import note
from tests.support.node import NodeServer
from tests.support.peer import Peer, peer
from tests.support.presence import ROOM, Stage, names, servers
from tests.support.swarm import swarm
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system]

KIB, MIB = 2**10, 2**20
BUDGET_BYTES = 12 * KIB
"""Of a connection in two rooms; 6 KiB is the goal for an idle one in one room."""


@pytest.mark.redis
@pytest.mark.nginx
async def test_a_node_that_is_killed_for_its_memory_is_a_node_that_died() -> None:
    """A11: until then it takes what is declared; then all resume on the other node, and nobody sees anybody go. The
    kernel's part (SIGKILL at a limit) is played by the test, which needs no cgroup of its own for that."""
    async with swarm(400, 2) as here:
        doomed = here.nodes[0]
        more = Crowd(300, ("127.0.0.1", doomed.port), observers=0)
        before_bytes = rss_bytes(doomed.pid)
        await more.arrive(30)
        each_bytes = (rss_bytes(doomed.pid) - before_bytes) / 300
        note("A11 memory per connection before the kill", each_bytes / KIB, "KiB")
        assert each_bytes <= BUDGET_BYTES
        for member in more.members:
            member.over = True
        killed_s = time.monotonic()
        doomed.kill()
        await eventually(lambda: sum(bool(member.closes) for member in here.crowd.everybody) >= 200)
        await here.crowd.all_here(15)
        note("A11 killed: all resumed on the other node after", time.monotonic() - killed_s, "s")
        assert {member.closes[-1] for member in here.crowd.everybody if member.closes} == {1006}


@contextmanager
def no_descriptors_left(node: NodeServer, spare: int) -> Iterator[None]:
    before = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
    open_now = len(os.listdir(f"/proc/{node.pid}/fd"))
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (open_now + spare, before[1]))
    try:
        yield
    finally:
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, before)


async def test_without_file_descriptors_who_is_there_stays_and_who_comes_may_come_later() -> None:
    """A13: said in the log at most once a second; accepts go on when there are some again."""
    with NodeServer() as node:
        async with peer(node.ws_url, "old", "r") as old, contextlib.AsyncExitStack() as stack:
            with no_descriptors_left(node, 5):
                began_s = time.monotonic()
                readers = []
                for number in range(30):
                    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
                    stack.callback(writer.close)
                    readers.append(reader)
                    assert (await old.ask("message", room="r", data=number, key=f"k{number}"))["ok"]
                await eventually(lambda: sum(each.at_eof() or each.exception() is not None for each in readers) >= 20)
                await asyncio.sleep(1.2)
                said = [record for record in node.log_records() if "open files" in str(record)]
                assert 1 <= len(said) <= 2 + (time.monotonic() - began_s), said
            await old.until(lambda: old.views["r"].data == list(range(30)))
            async with peer(node.ws_url, "new", "r") as new:
                assert (await new.ask("message", room="r", data="hello"))["ok"]
                await old.until(lambda: old.views["r"].data[-1] == "hello")


@asynccontextmanager
async def starving(node: NodeServer, share: float, every_s: float = 0.2) -> AsyncIterator[None]:
    """The node gets this share of a core: stopped and continued, as the kernel does to a cgroup over its quota."""

    async def starve() -> None:
        while True:
            os.kill(node.pid, signal.SIGSTOP)
            await asyncio.sleep(every_s * (1 - share))
            os.kill(node.pid, signal.SIGCONT)
            await asyncio.sleep(every_s * share)

    task = asyncio.create_task(starve())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
        os.kill(node.pid, signal.SIGCONT)


@pytest.mark.redis
async def test_a_node_with_hardly_any_cpu_keeps_its_lease_or_comes_back() -> None:
    """A14: at a twentieth of a core. Afterwards presence is exact, everything has arrived, and memory has not grown."""
    with servers(2) as two:
        async with Stage(two) as stage:
            starved, watched = stage.nodes
            users = await stage.open_all(names("user", 20), starved)
            await stage.watch(watched)
            [speaker] = await stage.open_all(["speaker"], watched)
            await speak(speaker, 50)
            before_bytes = rss_bytes(starved.pid)
            async with starving(starved, 0.05):
                await speak(speaker, 200, every_s=0.02)
            note("A14 growth of memory while it starved", (rss_bytes(starved.pid) - before_bytes) / MIB, "MiB")
            assert rss_bytes(starved.pid) - before_bytes < 8 * MIB
            everywhere, room = await stage.settled(2 * two.quiet_s)
            for events in (everywhere, room):
                balance: Counter[str] = Counter()
                for (user, status), count in events.items():
                    balance[user] += count if status == "online" else -count
                assert not any(count for user, count in balance.items() if user != "speaker"), events
            note("A14 users seen to go and come back", sum(n for (_, s), n in room.items() if s == "offline"), "")
            for one in users:
                await one.until(lambda one=one: one.views[ROOM].position == speaker.views[ROOM].position)  # type: ignore[misc]
                assert one.close_code is None
                one.check()


async def speak(one: Peer, messages: int, every_s: float = 0.0) -> None:
    for number in range(messages):
        assert (await one.ask("message", room=ROOM, data=f"{number} " + "x" * 1000))["ok"]
        await asyncio.sleep(every_s)
