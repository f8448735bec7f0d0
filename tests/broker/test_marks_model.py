"""Any order of appends, advances and losses of the log, on both brokers, against the rules in ten lines of Python."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.base import History, Mark, Signal, Status
from tests.support.brokers import Backend
from tests.support.busy import busy_s
from tests.support.redis_server import RedisServer

Step = tuple[str, Status, int] | None
"""(user, status, offset), or None for an append."""

users = st.sampled_from(("1", '"1"', '"a b"'))
statuses: st.SearchStrategy[Status] = st.sampled_from(("delivered", "read"))
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(st.none(), st.tuples(users, statuses, st.integers(0, 6))), max_size=30
)
_rooms = itertools.count(1)


async def check(backend: Backend, taken: list[Step]) -> None:
    room, top, marks, told = f"r{next(_rooms)}", 0, dict[str, Mark](), list[bytes]()
    async with backend.nodes("a", "b") as nodes:
        await nodes[0].broker.subscribe(f"room:{room}")
        for number, step in enumerate(taken):
            broker, payload = nodes[number % 2].broker, b"%d" % number
            if step is None:
                top = (await broker.append(room, payload, history=History())).offset
                told.append(payload)
                continue
            user, status, offset = step
            old = marks.get(user, Mark(user, 0, 0))
            new = Mark(user, max(old.delivered, offset), max(old.read, offset if status == "read" else 0))
            moves = offset <= top and new != old
            assert await broker.advance(room, user, status, offset, payload) == moves
            if moves:
                marks[user] = new
                told.append(payload)
        assert sorted(await nodes[1].broker.marks(room)) == sorted(marks.values())
        await nodes[0].broker.publish(f"room:{room}", b"end")
        await nodes[0].sink.wait_for(lambda: Signal(b"end") in nodes[0].sink.of(f"room:{room}"))
        assert nodes[0].sink.payloads(f"room:{room}") == [*told, b"end"]


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(taken=steps)
def test_marks_in_memory(prefix: str, taken: list[Step]) -> None:
    asyncio.run(check(Backend(None, prefix), taken))


@pytest.mark.redis
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(taken=steps)
def test_marks_on_redis(redis_server: RedisServer, prefix: str, taken: list[Step]) -> None:
    asyncio.run(check(Backend(redis_server, prefix), taken))


@pytest.mark.parametrize("kind", ["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def test_the_mark_of_a_user_who_does_not_come_back_expires(
    request: pytest.FixtureRequest, prefix: str, kind: str
) -> None:
    server = request.getfixturevalue("redis_server") if kind == "redis" else None
    backend = Backend(server, prefix)
    async with backend.nodes("a", marks_ttl_s=2.0) as (a,):
        for _ in range(2):
            await a.broker.append("r", b"x", history=History())
        await a.broker.advance("r", "1", "read", 1, b"")
        await a.broker.advance("r", "2", "read", 1, b"")
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        while {mark.user for mark in await a.broker.marks("r")} != {"2"}:
            assert loop.time() - start_s < 10 + busy_s()
            # Redis looks at whole seconds: the one who stays moves on, the other one has had his time
            await asyncio.sleep(0.1)
            if not await a.broker.advance("r", "2", "read", 2, b""):
                await a.broker.append("r", b"x", history=History())
                await a.broker.advance("r", "2", "read", (await a.broker.read("r", None, 0)).top.offset, b"")
        assert loop.time() - start_s >= 1.0
