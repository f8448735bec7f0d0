"""What both clients do when things break: one list of scenarios, each played with both at once.

Two nodes behind nginx, on one Redis; the Python client and the JavaScript client in processes of their own talk into
one room all the time. After the fault both must have seen the same log, whole, in order and without a double, every
send acknowledged once, or else an explicit reset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.clients.behaviour.world import World, play
from tests.clients.js import npm
from tests.support.figures import note
from tests.support.waiting import eventually

pytestmark = [pytest.mark.redis, pytest.mark.nginx, pytest.mark.system]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    npm.install()
    with World() as world:
        yield world


async def test_nodes_are_restarted_one_after_the_other(world: World) -> None:
    async with play(world) as scene:
        await scene.talk()
        scene.fault()
        for node in world.nodes:
            assert await node.stopped() == 0
            node.launch()
            await node.wait_ready()
        await scene.ends_well("rolling restart, its time included")
        for one in scene.clients:
            assert "draining" in one.statuses() and one.seen("status", status="waiting", code=1012)
            assert all(event["recovered"] is not False for event in one.seen("joined"))


async def test_nodes_are_killed_one_after_the_other(world: World) -> None:
    async with play(world) as scene:
        await scene.talk()
        for node in world.nodes:
            since = scene.marks()
            node.kill()
            scene.fault()
            await scene.back("node killed")
            node.launch()
            await node.wait_ready()
        await scene.ends_well()
        assert all(one.seen("status", status="waiting", code=1006) for one in scene.clients), since


async def test_the_network_resets_connections_again_and_again(world: World) -> None:
    async with play(world) as scene:
        await scene.talk()
        for _ in range(3):
            scene.fault()
            scene.network.cut()
            await scene.back("connections reset")
        await scene.ends_well()


async def test_the_network_swallows_everything(world: World) -> None:
    """Neither side hears of it: only the heartbeat can tell."""
    async with play(world, heartbeat_s=1) as scene:
        await scene.talk()
        since = scene.marks()
        scene.fault()
        scene.network.hold_up()
        scene.network.hold_down()
        await scene.all_see("status", since, status="waiting")
        scene.network.cut()
        scene.network.release()
        await scene.ends_well("half-open connection")


async def test_nginx_reads_its_configuration_again_and_is_restarted(world: World) -> None:
    async with play(world) as scene:
        await scene.talk()
        since = scene.marks()
        world.nginx.reload()
        await scene.all_see("status", since, status="waiting")  # the old workers give up after a second
        await scene.progress(2)
        world.nginx.kill()
        scene.fault()
        world.nginx.start()
        await scene.ends_well("nginx restarted")


async def test_redis_is_restarted_with_its_data(world: World) -> None:
    async with play(world) as scene:
        await scene.talk()
        since = scene.marks()
        await asyncio.to_thread(world.redis.kill)
        await scene.all_see("status", since, status="degraded")
        scene.fault()
        await asyncio.to_thread(world.redis.start)
        await scene.all_see("status", since, status="online")
        await scene.ends_well("Redis restarted with its data")


async def test_redis_is_restarted_empty(world: World) -> None:
    async with play(world) as scene:
        await scene.talk()
        since = scene.marks()
        await asyncio.to_thread(world.redis.restart, empty=True)
        scene.fault()
        await scene.all_see("reset", since, room=scene.room)
        await scene.ends_well("Redis restarted empty", resets=1)


async def test_redis_kills_the_connections_of_the_nodes(world: World) -> None:
    async with play(world) as scene:
        await scene.talk()
        for kind in ("pubsub", "normal", "pubsub"):
            scene.fault()
            await asyncio.to_thread(world.redis.command, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            await scene.back("CLIENT KILL")
        await scene.ends_well()


async def test_tokens_end_and_new_ones_cannot_be_had_at_first(world: World) -> None:
    async with play(world, life_s=3) as scene:
        await scene.talk()
        for one in scene.clients:
            await one.until(lambda one=one: len(one.seen("token")) >= 2, "an early refresh")  # type: ignore[misc]
            scene.tokens.refusals[one.name] = 3
        await scene.all_see("status", status="waiting", code=4003)
        scene.tokens.life_s = 3600
        scene.fault()
        await scene.ends_well("token expired, three refusals of a new one")
        for one in scene.clients:
            assert [event["status"] for event in one.seen("token")].count(503) == 3
            assert len(one.seen("token")) < 20, "the token service is asked when that is due, not all the time"


async def test_acks_are_lost_and_what_was_sent_is_in_the_log_once(world: World) -> None:
    async with play(world) as scene:
        scene.network.hold_down()
        for one in scene.clients:
            for number in range(10):
                one.tell("send", room=scene.room, data=f"{one.name}: {number}")

        async def logged() -> bool:
            return len(await asyncio.to_thread(world.log, scene.room)) == 20

        await eventually(logged)
        for node in world.nodes:
            node.kill()
            node.launch()
        scene.network.cut()
        scene.network.release()
        for one in scene.clients:
            await one.until(lambda one=one: len(one.seen("ack")) == 10, "all acks")  # type: ignore[misc]
        assert len(world.log(scene.room)) == 20
        await scene.talk()
        await scene.ends_well()


async def test_more_is_sent_at_once_than_the_server_takes(world: World) -> None:
    async with play(world) as scene:
        scene.fault()
        for one in scene.clients:
            for number in range(180):
                one.tell("send", room=scene.room, data=f"{one.name}: {number}")
        for one in scene.clients:
            await one.until(lambda one=one: len(one.seen("ack")) == 180, "all acks", 30)  # type: ignore[misc]
        await scene.talk()
        await scene.ends_well("180 messages at once from each")
        for one in scene.clients:
            assert set(one.statuses()) <= {"connecting", "online"}, "nobody was sent away"


async def test_a_client_that_reads_too_slowly_is_closed_and_resumes(world: World) -> None:
    async with play(world) as scene:
        await scene.talk()
        scene.network.hold_down()
        wanted = await asyncio.to_thread(world.slow_closes) + 2
        count = 0
        while await asyncio.to_thread(world.slow_closes) < wanted:
            assert count < 600, "nobody is too slow for that"
            await asyncio.gather(
                *(world.api.post("/publish", room=scene.room, data=f"{count + i} " + "x" * 60_000) for i in range(10))
            )
            count += 10
        note("too slow a reader: closed after", count * 60_000 / 2**20, "MiB")
        scene.fault()
        scene.network.release()
        # With 4008, unless the node has given up before that came through.
        await scene.all_see("status", status="waiting")
        await scene.ends_well("too slow a reader")


async def test_the_application_puts_clients_into_rooms_takes_them_out_and_sends_them_away(world: World) -> None:
    async with play(world) as scene:
        hall = f"{scene.room}-hall"
        for one in scene.clients:
            await world.api.post("/subscribe", user_id=one.name, room=hall)
        await scene.all_see("put_in", room=hall)
        await world.api.post("/publish", room=hall, data="welcome")
        await scene.all_see("message", room=hall, data="welcome", offset=1)
        since = scene.marks()
        scene.network.cut()
        await scene.all_see("joined", since, room=hall, recovered=True)  # by themselves
        for one in scene.clients:
            one.tell("send", room=hall, data=f"{one.name} is here")
        for one in scene.clients:
            await scene.all_see("message", room=hall, data=f"{one.name} is here")
        for one in scene.clients:
            await world.api.post("/unsubscribe", user_id=one.name, room=hall)
        await scene.all_see("ended", room=hall, code="left")
        await world.api.post("/publish", room=hall, data="nobody hears this")
        scene.network.cut()
        await scene.talk()
        await scene.ends_well()
        for one in scene.clients:
            assert not one.seen("message", data="nobody hears this")
            await world.api.post("/revoke", user_id=one.name, for_s=1)
        await scene.all_see("status", status="closed", code=4004)
