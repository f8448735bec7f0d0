"""The subscriber between a call and its confirmation, with the way to Redis held back where it matters."""

from __future__ import annotations

import asyncio

import pytest

from broker.base import History, Unavailable
from broker.options import BrokerOptions
from broker.redis.broker import RedisBroker
from tests.support.brokers import Node, running
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

HISTORY = History()
SUBSCRIBER = 2
"""The connection of a node that is accepted second."""


def broker(url: str, node_id: str, prefix: str, unavailable_after_s: float = 5) -> RedisBroker:
    options = BrokerOptions(prefix=prefix, heartbeat_s=60, unavailable_after_s=unavailable_after_s)
    return RedisBroker(url, node_id=node_id, options=options)


def last_command(server: RedisServer, client_name: str) -> str:
    [client] = [client for client in server.client.client_list() if client["name"] == client_name]
    return str(client["cmd"])


async def heard(a: Node, b: Node) -> list[bytes]:
    """What ``a`` gets of a message that ``b`` sends to the room; what follows on another channel shows it had time."""
    await b.broker.append("r", b"x", history=HISTORY)
    await b.broker.publish("room:fence", b"")
    await a.sink.wait_count("room:fence", 1)
    return a.sink.payloads("room:r")


async def test_nothing_is_delivered_though_redis_has_not_heard_of_the_unsubscribe(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        TcpProxy(redis_server.port).running() as proxy,
        running(broker(proxy.url, "a", prefix)) as a,
        running(broker(redis_server.url, "b", prefix)) as b,
    ):
        await asyncio.gather(a.broker.subscribe("room:r"), a.broker.subscribe("room:fence"))
        proxy.hold_up()
        leaving = asyncio.ensure_future(a.broker.unsubscribe("room:r"))
        await asyncio.sleep(0)
        assert await heard(a, b) == []
        assert redis_server.subscribers(f"{prefix}:{{0}}:room:r") == 1
        proxy.release()
        await leaving
        assert redis_server.subscribers(f"{prefix}:{{0}}:room:r") == 0


async def test_a_subscribe_given_up_is_not_completed_by_its_late_confirmation(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        TcpProxy(redis_server.port).running() as proxy,
        running(broker(proxy.url, "a", prefix, 0.1)) as a,
        running(broker(redis_server.url, "b", prefix)) as b,
    ):
        await a.broker.subscribe("room:fence")
        proxy.deafen(SUBSCRIBER)
        subscribing = asyncio.ensure_future(a.broker.subscribe("room:r"))
        await eventually(lambda: redis_server.subscribers(f"{prefix}:{{0}}:room:r") == 1)
        proxy.hold_up()
        with pytest.raises(Unavailable, match="does not answer"):
            await subscribing
        proxy.undeafen(SUBSCRIBER)
        assert await heard(a, b) == []
        proxy.release()
        await eventually(lambda: redis_server.subscribers(f"{prefix}:{{0}}:room:r") == 0)


async def test_a_second_subscribe_waits_for_its_own_confirmation(redis_server: RedisServer, prefix: str) -> None:
    async with (
        TcpProxy(redis_server.port).running() as proxy,
        running(broker(proxy.url, "a", prefix)) as a,
    ):
        proxy.deafen(SUBSCRIBER)
        first = asyncio.ensure_future(a.broker.subscribe("room:r"))
        await asyncio.sleep(0)
        leaving = asyncio.ensure_future(a.broker.unsubscribe("room:r"))
        await eventually(lambda: last_command(redis_server, f"{prefix}:a:subscriber") == "unsubscribe")
        proxy.hold_up()
        second = asyncio.ensure_future(a.broker.subscribe("room:r"))
        await asyncio.sleep(0)
        proxy.undeafen(SUBSCRIBER)  # the two answers arrive, the second SUBSCRIBE is still on its way
        await leaving
        with pytest.raises(Unavailable, match="unsubscribed meanwhile"):
            await first
        assert not second.done()
        proxy.release()
        await second
        assert redis_server.subscribers(f"{prefix}:{{0}}:room:r") == 1


async def test_many_channels_of_one_tick_go_in_few_commands(redis_server: RedisServer, prefix: str) -> None:
    async with running(broker(redis_server.url, "a", prefix)) as a:
        commands = a.broker.stats.commands
        await asyncio.gather(*(a.broker.subscribe(f"room:{i}") for i in range(1200)))
        assert a.broker.stats.commands == commands + 3
        assert redis_server.subscribers(f"{prefix}:{{0}}:room:1199") == 1
        await asyncio.gather(*(a.broker.unsubscribe(f"room:{i}") for i in range(1200)))
        assert a.broker.stats.commands == commands + 6
        await a.broker.publish("node:a", b"still there")
        await a.sink.wait_count("node:a", 1)
