"""Subscribe with the first holder, unsubscribe a linger after the last; never one overtaking the other."""

from __future__ import annotations

import asyncio

import pytest

from broker.base import Unavailable
from broker.memory import MemoryBroker
from broker.memory_bus import MemoryBus
from server.interest import Interest
from tests.support.sinks import RecordingSink


class GatedBroker(MemoryBroker):
    """A real broker whose subscriptions wait until the test lets them pass."""

    def __init__(self, bus: MemoryBus) -> None:
        super().__init__(node_id="n1", bus=bus)
        self.calls: list[str] = []
        self.unsubscribed = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.away = False

    def subscribe(self, channel: str) -> asyncio.Future[None]:
        self.calls.append(f"+{channel}")
        return asyncio.ensure_future(self._subscribe_later(channel))

    async def _subscribe_later(self, channel: str) -> None:
        await self.gate.wait()
        if self.away:
            raise Unavailable("away")
        await super().subscribe(channel)

    def unsubscribe(self, channel: str) -> asyncio.Future[None]:
        self.calls.append(f"-{channel}")
        self.unsubscribed.set()
        return super().unsubscribe(channel)


class World:
    def __init__(self, linger_s: float = 0.0) -> None:
        self.bus = MemoryBus()
        self.broker = GatedBroker(self.bus)
        self.dropped: list[str] = []
        self.interest = Interest(self.broker, linger_s, self.dropped.append)

    async def __aenter__(self) -> World:
        await self.broker.start(RecordingSink())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.broker.close()


async def acquire(world: World, channel: str) -> None:
    waiting = world.interest.acquire(channel)
    if waiting is not None:
        await asyncio.shield(waiting)


async def test_the_first_holder_waits_for_the_subscription_and_the_second_does_not() -> None:
    async with World() as world:
        first = world.interest.acquire("room:a")
        assert first is not None
        await first
        assert world.bus.subscribers("room:a") == 1
        assert world.interest.acquire("room:a") is None
        assert world.broker.calls == ["+room:a"]


async def test_holders_that_come_while_subscribing_share_one_subscription() -> None:
    async with World() as world:
        world.broker.gate.clear()
        waiting = [world.interest.acquire("room:a") for _ in range(5)]
        assert not any(w is None or w.done() for w in waiting)
        world.broker.gate.set()
        await asyncio.gather(*(w for w in waiting if w is not None))
        assert world.broker.calls == ["+room:a"]


async def test_the_last_holder_out_unsubscribes_after_the_linger() -> None:
    async with World(linger_s=0.0) as world:
        await acquire(world, "room:a")
        await acquire(world, "room:a")
        world.interest.release("room:a")
        await acquire(world, "room:b")
        world.interest.release("room:b")
        await world.broker.unsubscribed.wait()
        assert world.broker.calls == ["+room:a", "+room:b", "-room:b"], "of a there is a holder still"
        world.broker.calls.clear()
        world.dropped.clear()
        world.broker.unsubscribed.clear()
        world.interest.release("room:a")
        await world.broker.unsubscribed.wait()
        assert world.broker.calls == ["-room:a"] and world.dropped == ["room:a"]
        assert world.bus.subscribers("room:a") == 0 and len(world.interest) == 0


async def test_coming_back_within_the_linger_costs_nothing() -> None:
    async with World(linger_s=60.0) as world:
        await acquire(world, "room:a")
        world.interest.release("room:a")
        assert world.interest.acquire("room:a") is None
        assert world.broker.calls == ["+room:a"]


async def test_who_comes_after_the_linger_gets_a_subscription_of_its_own() -> None:
    async with World() as world:
        await acquire(world, "room:a")
        world.interest.release("room:a")
        await world.broker.unsubscribed.wait()
        await acquire(world, "room:a")
        assert world.broker.calls == ["+room:a", "-room:a", "+room:a"]
        assert world.bus.subscribers("room:a") == 1


async def test_what_nobody_wants_any_more_is_given_up_once_it_is_subscribed() -> None:
    async with World() as world:
        world.broker.gate.clear()
        waiting = world.interest.acquire("room:a")
        assert waiting is not None
        world.interest.release("room:a")
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0, passed.set)  # later than the linger
        await passed.wait()
        assert world.broker.calls == ["+room:a"] and len(world.interest) == 1
        world.broker.gate.set()
        await waiting
        await world.broker.unsubscribed.wait()
        assert world.bus.subscribers("room:a") == 0 and len(world.interest) == 0


async def test_a_failed_subscription_is_tried_again_when_the_broker_is_back() -> None:
    async with World() as world:
        world.broker.away = True
        waiting = world.interest.acquire("room:a")
        assert waiting is not None
        with pytest.raises(Unavailable):
            await waiting
        world.broker.away = False
        world.interest.retry()
        await acquire(world, "room:a")
        assert world.bus.subscribers("room:a") == 1 and world.broker.calls == ["+room:a", "+room:a"]


async def test_a_failed_subscription_nobody_wants_any_more_is_forgotten() -> None:
    async with World() as world:
        world.broker.away = True
        waiting = world.interest.acquire("room:a")
        assert waiting is not None
        world.interest.release("room:a")
        await asyncio.wait((waiting,))
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0, passed.set)  # later than the linger
        await passed.wait()
        assert len(world.interest) == 0
        world.broker.away = False
        world.interest.retry()
        assert world.broker.calls == ["+room:a"]
