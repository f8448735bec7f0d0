"""What only the embedded broker has: a bus that can kill and interrupt nodes, and time as an argument."""

from __future__ import annotations

import asyncio

import pytest

from broker.base import Dedup, History, Position, Unavailable
from broker.memory import MemoryBroker
from broker.memory_bus import MemoryBus
from broker.memory_log import META_TTL_S, Log, Logs
from broker.options import BrokerOptions
from tests.support.brokers import running

HISTORY = History()


async def test_a_killed_node_loses_what_it_had_not_delivered_and_its_subscriptions() -> None:
    bus = MemoryBus()
    async with running(MemoryBroker(node_id="a", bus=bus)) as a, running(MemoryBroker(node_id="b", bus=bus)) as b:
        await a.broker.subscribe("room:r")
        await b.broker.append("r", b"x", history=HISTORY)
        bus.kill(a.broker)
        assert bus.subscribers("room:r") == 0
        await asyncio.sleep(0)
        assert a.sink.deliveries == [] and a.sink.events == []
        with pytest.raises(Unavailable):
            await a.broker.append("r", b"y", history=HISTORY)
        assert (await b.broker.read("r", 0, 10)).top.offset == 1


async def test_an_interrupted_node_misses_messages_and_is_told() -> None:
    bus = MemoryBus()
    options = BrokerOptions(unavailable_after_s=0.05)
    async with (
        running(MemoryBroker(node_id="a", bus=bus, options=options)) as a,
        running(MemoryBroker(node_id="b", bus=bus)) as b,
    ):
        await a.broker.subscribe("room:r")
        bus.interrupt(a.broker, "by intention")
        bus.interrupt(a.broker, "twice")
        assert not a.broker.ready and a.broker.reason == "by intention"
        await b.broker.append("r", b"missed", history=HISTORY)
        with pytest.raises(Unavailable, match="by intention"):
            await a.broker.subscribe("room:s")
        subscribing = asyncio.ensure_future(a.broker.subscribe("room:t"))
        await asyncio.sleep(0)
        bus.restore(a.broker)
        bus.restore(a.broker)
        await subscribing
        await b.broker.append("r", b"heard", history=HISTORY)
        await a.sink.wait_count("room:r", 1)
        assert a.sink.payloads("room:r") == [b"heard"]
        assert a.sink.events == [("interrupted", "by intention"), ("resubscribed", ["room:r"]), ("restored",)]
        assert bus.subscribers("room:s") == 0 and bus.subscribers("room:t") == 1


def test_logs_and_retry_keys_are_forgotten_in_their_time() -> None:
    logs = Logs()

    def append(now_s: float, key: str | None = None) -> tuple[bytes, int]:
        position, _ = logs.append(
            "r",
            b"x",
            tag=b"t%f" % now_s,
            epoch=b"e%f" % now_s,
            history=History(ttl_s=10),
            dedup=Dedup("s", key) if key else None,
            dedup_ttl_s=120,
            now_s=now_s,
        )
        return position.epoch, position.offset

    first = append(0, "k")
    assert append(119.9, "k") == first
    assert append(120, "k") == (first[0], 2)
    month_s = 30 * 24 * 3600
    assert append(120 + month_s - 1) == (first[0], 3)
    assert append(120 + 2 * month_s) == (b"e%f" % (120 + 2 * month_s), 1)


def test_a_retry_key_of_an_older_epoch_is_a_new_message() -> None:
    logs = Logs()

    def append(epoch: bytes, now_s: float) -> Position:
        position, entry = logs.append(
            "r",
            b"x",
            tag=b"t",
            epoch=epoch,
            history=HISTORY,
            dedup=Dedup("s", "k"),
            dedup_ttl_s=10 * META_TTL_S,
            now_s=now_s,
        )
        assert entry is not None
        return position

    assert append(b"e1", 0) == (b"e1", 1, b"t")
    assert append(b"e2", META_TTL_S) == (b"e2", 1, b"t")


def test_an_empty_log_is_kept_for_an_hour_after_the_last_read() -> None:
    log = Log(b"e", 0)
    assert log.expires_s == 3600
    log.read(None, 0, 1000)
    assert log.expires_s == 4600


def test_rooms_opened_and_left_do_not_pile_up() -> None:
    logs = Logs()
    for i in range(10 * Logs.SWEEP_EVERY):
        logs.open(f"r{i}", b"e", now_s=float(i) * 10)
    assert len(logs._logs) <= Logs.SWEEP_EVERY + 360
