"""What others see of a user whose node dies, freezes, stalls, leaves or has a wrong clock: rows A1 to A15 of the fault
catalogue, their presence half. Three nodes of one Redis, times a fifth of production's, an observer on the third node.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.busy import busy_s
from tests.support.figures import note
from tests.support.node import NodeServer
from tests.support.peer import Peer
from tests.support.presence import ROOM, SLACK_S, Servers, Stage, each, names, servers
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

pytestmark = [pytest.mark.redis, pytest.mark.system]


@pytest.fixture(scope="module")
def three() -> Iterator[Servers]:
    with servers(3) as started:
        yield started


async def test_a_node_dies_and_its_clients_are_back_within_the_grace_period(three: Servers) -> None:
    """A1: nobody sees anything, and every client resumes."""
    async with Stage(three) as stage:
        dying, other, watched = stage.nodes
        moving = await stage.open_all(names("mover", 40), dying)
        await stage.watch(watched)
        dying.kill()

        async def come_back(one: Peer, after_s: float) -> None:
            await asyncio.sleep(after_s)
            await stage.move(one, other)

        await asyncio.gather(*(come_back(one, random.uniform(0, 0.6)) for one in moving))
        assert await stage.settled(three.crash_s + SLACK_S + busy_s()) == (Counter(), Counter())


async def test_a_node_dies_with_its_clients(three: Servers) -> None:
    """A2: one offline each, in time, but for those with another tab elsewhere; nothing is left of the node."""
    async with Stage(three) as stage:
        dying, other, watched = stage.nodes
        await stage.watch(watched)
        gone, kept = names("gone", 12), names("kept", 3)
        await stage.open_all(gone + kept + kept, dying)
        await stage.open_all(kept, other)
        assert await stage.settled() == (each(gone + kept, "online"), each(gone + kept, "online"))
        killed_s = time.monotonic()
        dying.kill()
        stage.lost(dying)
        await asyncio.gather(*(stage.observer.saw(user, "offline", room) for user in gone for room in (None, ROOM)))
        took_s = time.monotonic() - killed_s
        note("A2: offline after a node crash (a fifth of the times)", took_s, "s")
        assert took_s <= three.crash_s + SLACK_S + busy_s()
        expected = each(gone + kept, "online") + each(gone, "offline")
        assert await stage.settled() == (expected, expected)


async def test_a_short_freeze_is_not_seen(three: Servers) -> None:
    """A4: neither by others nor by the node's own clients, who only wait."""
    async with Stage(three) as stage:
        frozen, other, watched = stage.nodes
        users = await stage.open_all(names("user", 10), frozen, other)
        await stage.watch(watched)
        frozen.pause()
        await asyncio.sleep(0.6)
        frozen.resume()
        await asyncio.gather(*(one.ask("get_presence") for one in users))
        await asyncio.sleep(three.lease_s)  # a lease lost in the freeze would show by now
        assert await stage.settled() == (Counter(), Counter())
        assert all(one.close_code is None for one in users)


async def test_a_zombie_wakes_up(three: Servers) -> None:
    """A5: frozen for longer than the lease a node's users go offline once; awake it is refused, joins again under a new
    name and says who is there: one online each, no count twice."""
    async with Stage(three) as stage:
        zombie, other, watched = stage.nodes
        stay, leave, both = names("stay", 6), names("leave", 2), names("both", 2)
        await stage.open_all(stay + both, zombie)
        leaving = await stage.open_all(leave, zombie)
        await stage.open_all(both, other)
        await stage.watch(watched)
        before = stage.incarnations()
        zombie.pause()
        try:
            await asyncio.gather(*(stage.observer.saw(user, "offline") for user in stay + leave))
            await stage.vanish(*leaving)
        finally:
            zombie.resume()
        expected = each(stay + leave, "offline") + each(stay, "online")
        assert await stage.settled() == (expected, expected)
        after = stage.incarnations()
        assert len(before - after) == len(after - before) == 1, "the zombie goes by its old name"
        # It serves as before: its clients are still connected, and presence goes on.
        late = await stage.open("late", zombie)
        await stage.observer.saw("late", "online")
        await stage.close(late)
        await stage.observer.saw("late", "offline")


async def test_what_a_zombie_wrote_arrives_after_it_was_cleared_up(three: Servers) -> None:
    """A6: the counts lie in the network while the node is taken for dead. Delivered late they change nothing."""
    async with Stage(three) as stage, TcpProxy(three.redis.port).running() as proxy:
        async with stage.another_node(broker=proxy.url, node="zombie") as zombie:
            stay = names("stay", 4)
            await stage.open_all(stay, zombie)
            await stage.watch(stage.nodes[2])
            proxy.hold_up()
            # One more tab: nothing to subscribe, so it is welcomed, and a tick later its count is on the way.
            tab = await stage.open("stay0", zombie, join=False)
            await tab.ask("get_presence")
            zombie.pause()
            try:
                for user in stay:
                    await stage.observer.saw(user, "offline")
                    await stage.observer.saw(user, "offline", ROOM)
                await eventually(lambda: "dead: " not in str(stage.wrong()))
                before = totals(stage)
                await eventually(lambda: idle_s(stage, "zombie") >= 3)
                heard_s = last_heard_s(stage, "zombie")
                proxy.release()
                # Whole seconds of two clocks, of which one may be a second ahead.
                await eventually(lambda: last_heard_s(stage, "zombie") > heard_s + 1)
                assert totals(stage) == before == {"observer"}
            finally:
                zombie.resume()
            expected = each(stay, "offline") + each(stay, "online")
            assert await stage.settled() == (expected, expected)
            await stage.close(*[one for one, home in stage.homes.items() if home is zombie])


def totals(stage: Stage) -> set[str]:
    """Whom Redis counts, anywhere or in the room."""
    return set(stage.stored(None)) | set(stage.stored(ROOM))


def idle_s(stage: Stage, node: str) -> int:
    """How long Redis has heard nothing from a node."""
    clients = stage.redis.client.client_list()
    return min(int(each["idle"]) for each in clients if node in each["name"])


def last_heard_s(stage: Stage, node: str) -> int:
    """When that was, by the clock of Redis."""
    return int(stage.redis.client.time()[0]) - idle_s(stage, node)


async def roll(stage: Stage, node: NodeServer, scale: float) -> None:
    """Drain a node, send its clients to the next one as soon as they may come, start it again."""
    following = stage.nodes[(stage.nodes.index(node) + 1) % len(stage.nodes)]

    async def follow(one: Peer) -> None:
        await one.until(lambda: one.close_code is not None, 40)
        assert one.close_code == 1012, one.close_code
        [drain] = [frame for frame in one.frames if frame["op"] == "drain"]
        one.frames.clear()
        await asyncio.sleep(drain["retry_after_ms"] / 1000 * scale)
        await stage.move(one, following)

    leaving = [one for one, home in stage.homes.items() if home is node and one is not stage.observer]
    moving = asyncio.gather(*(follow(one) for one in leaving))
    assert await node.stopped(40) == 0
    await moving
    node.launch()
    await node.wait_ready()


async def rolling_restart(stage: Stage, users: int, scale: float) -> None:
    *first, last = stage.nodes
    await stage.open_all(names("user", users), *stage.nodes)
    observer = await stage.watch(last)
    for node in first:
        await roll(stage, node, scale)
    assert await stage.settled(60) == (Counter(), Counter())
    # Now the observer's own node: what it sees on the next one is what it knew.
    known = await observer.roster(None), await observer.roster(ROOM)
    leaving = asyncio.create_task(roll(stage, last, scale))
    await observer.until(lambda: observer.close_code is not None, 40)
    assert (observer.events(None), observer.events(ROOM)) == (Counter(), Counter())
    stage.homes[observer] = first[0]
    await observer.begin(first[0].ws_url)
    assert (await observer.roster(None), await observer.roster(ROOM)) == known
    await leaving
    assert await stage.settled(60) == (Counter(), Counter())


async def test_a_rolling_restart_is_not_seen(three: Servers) -> None:
    """A10: all nodes drain one after the other; an observer whose own is the last sees no event at all."""
    async with Stage(three) as stage:
        await rolling_restart(stage, 30, scale=0.2)


STALL_S = 1.0


class StallingNode(NodeServer):
    """SIGUSR1 blocks the event loop for a second, as a handler of the application would that computes or waits."""

    arguments = (
        "-c",
        f"import signal, time, sys; signal.signal(signal.SIGUSR1, lambda *_: time.sleep({STALL_S}));"
        "sys.argv[1:] = ['serve']; from server.cli import main; main()",
    )


async def test_an_event_loop_that_stalls_for_less_than_a_lease_is_not_seen() -> None:
    """A12: neither by others nor by its own clients; the node's own measure shows it."""
    with servers(2, node_class=StallingNode) as two:
        async with Stage(two) as stage:
            stalling, watched = stage.nodes
            users = await stage.open_all(names("user", 10), stalling)
            await stage.watch(watched)
            start_s = time.monotonic()
            os.kill(stalling.pid, signal.SIGUSR1)
            await asyncio.gather(*(one.ask("get_presence") for one in users))
            assert time.monotonic() - start_s >= 0.9 * STALL_S, "it did not stall"
            await asyncio.sleep(two.lease_s)
            assert await stage.settled() == (Counter(), Counter())
            assert all(one.close_code is None for one in users)


SKEW_C = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long skew(void) {
  long seconds = 0;
  FILE *file = fopen(getenv("SKEW_FILE"), "r");
  if (file) { if (fscanf(file, "%ld", &seconds) != 1) seconds = 0; fclose(file); }
  return seconds;
}
int clock_gettime(clockid_t clock, struct timespec *at) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, at);
  if (clock == CLOCK_REALTIME) at->tv_sec += skew();
  return result;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"""
"""The wall clock of a process, moved by the seconds in a file."""


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Processes started after a call have a clock of their own, set by writing seconds into the file it returns."""
    library = tmp_path / "skew.so"
    (tmp_path / "skew.c").write_text(SKEW_C)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, tmp_path / "skew.c", "-ldl"], check=True)

    def own(name: str) -> Path:
        path = tmp_path / name
        path.write_text("0")
        monkeypatch.setenv("LD_PRELOAD", str(library))
        monkeypatch.setenv("SKEW_FILE", str(path))
        return path

    return own


async def test_nobody_is_taken_for_dead_because_of_a_clock(clock: Callable[[str], Path]) -> None:
    """A15: nodes an hour before and behind; the clock of Redis set forward by more than a lease, and back."""
    redis_clock = clock("redis")
    with servers(0) as started:
        async with Stage(started) as stage, contextlib.AsyncExitStack() as nodes:
            for name, hours in (("fast", 1), ("slow", -1), ("right", 0)):
                clock(name).write_text(str(3600 * hours))
                await nodes.enter_async_context(stage.another_node(node=name))
            fast, slow, right = stage.nodes
            users = await stage.open_all(names("user", 9), fast, slow, right)
            await stage.watch(right)
            ahead = [one for one in users if stage.homes[one] is fast]
            told = await fast_time(ahead[0])
            assert abs(told - time.time() - 3600) < 60, "the clock of the node is not skewed"
            members = stage.incarnations()
            for step_s in (6, 36, -30):
                before = redis_time(stage)
                redis_clock.write_text(str(step_s))
                after = redis_time(stage)
                step = f"{before} -> {after}"
                assert abs(after - time.time() - step_s) < 3, step
                await asyncio.sleep(started.lease_s + 2 * started.heartbeat_s)
                assert await stage.settled() == (Counter(), Counter()), step
                assert stage.incarnations() == members, f"a node was taken for dead: {step}"
            await stage.close(users[0])
            await stage.observer.saw("user0", "offline", timeout_s=started.quiet_s + SLACK_S)
            assert await stage.settled() == (each(["user0"], "offline"), each(["user0"], "offline"))
            await stage.close(*stage.homes)


def redis_time(stage: Stage) -> float:
    seconds, micros = stage.redis.client.time()
    return seconds + micros / 1e6


async def fast_time(one: Peer) -> float:
    """What the node of a peer takes for the time: its stamp on a message."""
    before = len(one.frames)
    reply = await one.ask("message", room=ROOM, data="what is the time?")
    assert reply["ok"], reply
    await one.until(lambda: any(frame.get("data") == "what is the time?" for frame in one.frames[before:]))
    [stamp] = [frame["ts"] for frame in one.frames[before:] if frame.get("data") == "what is the time?"]
    return float(stamp)
