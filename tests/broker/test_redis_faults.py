"""What a node on Redis does when Redis, the way to it or its own reader fails: the outcomes of the fault catalogue, as
far as the broker decides them. All times are scaled down; a probe that does not come back is noticed within 2.5
heartbeats.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import redis as redis_py

from broker.base import BrokerError, Dedup, Delivery, History, OutcomeUnknown, Position, Unavailable
from broker.options import BrokerOptions
from broker.redis.acl import acl_rules
from broker.redis.broker import RedisBroker
from broker.redis.publisher import LOADS
from tests.support.brokers import Node, running
from tests.support.busy import busy_s
from tests.support.redis_server import RedisServer
from tests.support.sinks import RecordingSink
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.redis

HISTORY = History()
HEARTBEAT_S = 1.0
NOTICED_S = 2.5 * HEARTBEAT_S
SLACK_S = 1.0
"""For a busy machine."""
PROBED: dict[str, Any] = {"heartbeat_s": HEARTBEAT_S, "connect_timeout_s": 1, "unavailable_after_s": 0.5}
HASTY: dict[str, Any] = {"publish_timeout_s": 0.8, "unavailable_after_s": 0.4}
OUTAGE = ["interrupted", "resubscribed", "restored"]


def options(**changes: Any) -> BrokerOptions:
    """Patient and without probes, unless a test is about them: the machine may be busy."""
    scaled: dict[str, Any] = {
        "heartbeat_s": 60,
        "connect_timeout_s": 5,
        "publish_timeout_s": 5,
        "unavailable_after_s": 5,
        "backoff_min_s": 0.02,
        "backoff_max_s": 0.2,
    }
    return BrokerOptions(**(scaled | changes))


def broker(url: str, node_id: str = "a", **changes: Any) -> RedisBroker:
    return RedisBroker(url, node_id=node_id, options=options(**changes))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """One of its own: these tests are not gentle."""
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        yield server


def restored(node: Node, times: int) -> bool:
    return node.sink.names().count("restored") >= times


async def outcome(future: asyncio.Future[Position]) -> Position | BrokerError:
    try:
        return await future
    except BrokerError as error:
        return error


async def healed(node: Node, events: list[str], timeout_s: float = 5.0) -> None:
    """The sink was told exactly this, and the node works."""
    await node.sink.wait_for(lambda: len(node.sink.events) >= len(events), timeout_s)
    assert node.sink.names() == events
    assert node.broker.ready and node.broker.reason == ""
    count = len(node.sink.of("room:r"))
    await node.broker.append("r", b"healed", history=HISTORY)
    await node.sink.wait_count("room:r", count + 1)


# Connections


async def test_killed_subscribers_are_subscribed_again_and_publishing_goes_on(server: RedisServer) -> None:
    async with running(broker(server.url)) as a:
        await asyncio.gather(a.broker.subscribe("room:r"), a.broker.subscribe("room:s"))
        appends = [a.broker.append("r", b"%d" % i, history=HISTORY) for i in range(300)]
        await asyncio.sleep(0)
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
        assert [(await append).offset for append in appends] == list(range(1, 301))
        await healed(a, OUTAGE)
        assert a.sink.events[1] == ("resubscribed", ["room:r", "room:s"])
        assert a.broker.stats.reconnects == 1


async def test_killed_command_connections_fail_only_what_was_in_flight(server: RedisServer) -> None:
    async with running(broker(server.url)) as a, running(broker(server.url, "b")) as b:
        await a.broker.subscribe("room:r")
        given: dict[int, Position | BrokerError] = {}
        for round_ in range(10):
            appends = {
                i: a.broker.append("r", b"%d" % i, history=HISTORY) for i in range(round_ * 50, round_ * 50 + 50)
            }
            await asyncio.sleep(0.001 * (round_ % 3))
            server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            given |= {i: await outcome(append) for i, append in appends.items()}
        await b.sink.in_time(b.broker.wait_ready())
        entries = {int(entry.payload): entry for entry in (await b.broker.read("r", 0, 1000)).entries}
        for i, result in given.items():  # nobody got the answer of another one
            if isinstance(result, Position):
                assert entries[i][:2] == result[:2] and entries[i].tag == result.tag
            else:
                assert isinstance(result, OutcomeUnknown) or i not in entries
        assert "resubscribed" not in a.sink.names()
        assert a.sink.names()[:2] == ["interrupted", "restored"]


async def test_without_redis_at_start_the_node_waits_and_says_why(server: RedisServer) -> None:
    server.stop()
    async with running(broker(server.url, **HASTY), wait_ready=False) as a:
        await a.sink.wait_for(lambda: a.sink.events)
        assert not a.broker.ready and "cannot connect to Redis" in a.broker.reason
        start_s = time.monotonic()
        with pytest.raises(Unavailable, match="Redis is away"):
            await a.broker.append("r", b"x", history=HISTORY)
        with pytest.raises(Unavailable, match="Redis is away"):
            await a.broker.read("r", 0, 10)
        with pytest.raises(Unavailable, match="cannot subscribe"):
            await a.broker.subscribe("room:lost")
        assert time.monotonic() - start_s < 3 * 0.4 + SLACK_S + busy_s()
        await eventually(lambda: a.broker.stats.reconnects > 3)
        server.start()
        await asyncio.gather(a.broker.wait_ready())
        await a.broker.subscribe("room:r")
        await healed(a, ["interrupted", "restored"])
        assert server.subscribers("roomcast:{0}:room:lost") == 0


async def test_a_publish_waits_through_a_short_outage(server: RedisServer) -> None:
    async with running(broker(server.url)) as a:
        server.kill()
        await a.sink.wait_for(lambda: a.sink.events)
        appends = [a.broker.append("r", b"%d" % i, history=HISTORY) for i in range(20)]
        subscribed = asyncio.ensure_future(a.broker.subscribe("room:r"))
        server.start()
        assert [(await append).offset for append in appends] == list(range(1, 21))
        await subscribed
        await healed(a, ["interrupted", "restored"])


async def test_too_many_waiting_publishes_fail_at_once(server: RedisServer) -> None:
    async with running(
        broker(server.url, unavailable_after_s=0.4, max_waiting_publishes=10, max_waiting_bytes=1000)
    ) as a:
        server.kill()
        await a.sink.wait_for(lambda: a.sink.events)
        waiting = [a.broker.append("r", b"x", history=HISTORY) for _ in range(10)]
        refused = a.broker.append("r", b"x", history=HISTORY)
        assert isinstance(refused.exception(), Unavailable) and not any(future.done() for future in waiting)
        for future in waiting:
            assert isinstance(await outcome(future), Unavailable)
        big = [a.broker.append("r", bytes(600), history=HISTORY) for _ in range(2)]
        assert big[1].done() and not big[0].done()
        assert isinstance(await outcome(big[0]), Unavailable)


# Redis loses what it knew


async def test_restart_with_data_continues_the_log(server: RedisServer) -> None:
    async with running(broker(server.url)) as a:
        await a.broker.subscribe("room:r")
        before = await a.broker.append("r", b"x", history=HISTORY, dedup=Dedup("s", "k"))
        server.restart()
        await a.sink.wait_for(lambda: ("restored",) in a.sink.events)
        assert await a.broker.append("r", b"x", history=HISTORY, dedup=Dedup("s", "k")) == before
        after = await a.broker.append("r", b"y", history=HISTORY)
        assert (after.epoch, after.offset) == (before.epoch, 2)
        await healed(a, OUTAGE)


async def test_restart_without_data_begins_a_new_epoch() -> None:
    with RedisServer() as server:
        async with running(broker(server.url)) as a:
            await a.broker.subscribe("room:r")
            before = await a.broker.append("r", b"x", history=HISTORY, dedup=Dedup("s", "k"))
            server.restart(empty=True)
            await a.sink.wait_for(lambda: ("restored",) in a.sink.events)
            assert await a.broker.tops(["r"]) == [None]
            after = await a.broker.append("r", b"x", history=HISTORY, dedup=Dedup("s", "k"))
            assert after.offset == 1 and after.epoch != before.epoch
            # the second time because presence tells of the loss too
            await healed(a, ["interrupted", "resubscribed", "resubscribed", "restored"])


async def test_a_rollback_keeps_the_epoch_and_shows_in_the_tag() -> None:
    with RedisServer() as server:
        async with running(broker(server.url)) as a:
            await a.broker.append("r", b"1", history=HISTORY)
            server.command("SAVE")
            lost = await a.broker.append("r", b"lost", history=HISTORY)
            server.restart()
            await a.sink.wait_for(lambda: ("restored",) in a.sink.events)
            forked = await a.broker.append("r", b"other", history=HISTORY)
            assert forked[:2] == lost[:2]  # epoch and offset cannot tell
            assert forked.tag != lost.tag


async def test_flushall_begins_new_epochs_without_an_interruption(server: RedisServer) -> None:
    async with running(broker(server.url)) as a:
        await a.broker.subscribe("room:r")
        before = await a.broker.append("r", b"x", history=HISTORY, dedup=Dedup("s", "k"))
        server.command("FLUSHALL")
        after = await a.broker.append("r", b"y", history=HISTORY, dedup=Dedup("s", "k"))
        assert after.offset == 1 and after.epoch != before.epoch
        assert (await a.broker.read("r", 0, 10)).top == after
        await healed(a, [])


async def test_flushall_is_noticed_by_the_next_heartbeat_and_everything_is_doubted(server: RedisServer) -> None:
    async with running(broker(server.url, **PROBED)) as a:
        await asyncio.gather(a.broker.subscribe("room:r"), a.broker.subscribe("room:idle"))
        server.command("FLUSHALL")
        start_s = time.monotonic()
        await a.sink.wait_for(lambda: a.sink.events)
        assert time.monotonic() - start_s < HEARTBEAT_S + SLACK_S + busy_s()
        await healed(a, ["resubscribed"])
        assert a.sink.events == [("resubscribed", ["room:idle", "room:r"])]


async def test_a_log_whose_meta_was_lost_is_not_mixed_with_the_new_one(server: RedisServer) -> None:
    async with running(broker(server.url)) as a:
        for _ in range(5):
            await a.broker.append("r", b"old", history=HISTORY)
        before = await a.broker.append("r", b"old", history=HISTORY, dedup=Dedup("s", "k"))
        server.command("DEL", "roomcast:{0}:meta:r")
        after = await a.broker.append("r", b"new", history=HISTORY, dedup=Dedup("s", "k"))
        assert after.epoch != before.epoch and after.offset == 1
        assert [entry.payload for entry in (await a.broker.read("r", 0, 10)).entries] == [b"new"]
        server.command("DEL", "roomcast:{0}:meta:r")
        assert (await a.broker.read("r", 0, 10)).entries == []


async def test_script_flush_under_load_fails_and_reorders_nothing(server: RedisServer) -> None:
    async with running(broker(server.url)) as a:
        await a.broker.subscribe("room:r")
        appends = []
        for i in range(1000):
            appends.append(a.broker.append("r", b"%d" % i, history=HISTORY))
            if i % 40 == 0:
                server.command("SCRIPT", "FLUSH")
                await asyncio.sleep(0.002)
        assert [(await append).offset for append in appends] == list(range(1, 1001))
        server.command("SCRIPT", "FLUSH")
        assert (await a.broker.read("r", 990, 100)).top.offset == 1000
        await a.sink.wait_count("room:r", 1000)
        assert a.sink.payloads("room:r") == [b"%d" % i for i in range(1000)]
        assert a.broker.stats.noscript > 5
        assert a.broker.stats.unavailable == a.broker.stats.outcomes_unknown == 0


async def test_a_script_that_can_not_be_loaded_again_is_a_refusal_and_not_a_circle(server: RedisServer) -> None:
    server.command("ACL", "SETUSER", "u", "reset", "on", ">p", *acl_rules())
    async with running(broker(server.url.replace("unix://", "unix://u:p@"))) as a:
        await a.broker.append("r", b"x", history=HISTORY)
        server.command("ACL", "SETUSER", "u", "-script|load")
        server.command("SCRIPT", "FLUSH")
        result = await outcome(a.broker.append("r", b"y", history=HISTORY))
        assert isinstance(result, Unavailable) and "forgetting" in str(result)
        assert a.broker.stats.noscript >= LOADS


# Redis does not answer


async def test_a_paused_redis_lets_no_caller_wait_and_doubles_nothing(server: RedisServer) -> None:
    async with running(broker(server.url, **HASTY)) as a:
        await a.broker.append("r", b"0", history=HISTORY)
        server.command("CLIENT", "PAUSE", 3000, "WRITE")
        start_s = time.monotonic()
        sent = a.broker.append("r", b"1", history=HISTORY, dedup=Dedup("s", "1"))
        await asyncio.sleep(0)
        queued = a.broker.append("r", b"2", history=HISTORY, dedup=Dedup("s", "2"))
        assert isinstance(await outcome(queued), Unavailable)
        assert time.monotonic() - start_s < 0.4 + SLACK_S + busy_s()
        assert isinstance(await outcome(sent), OutcomeUnknown)
        assert time.monotonic() - start_s < 0.8 + SLACK_S + busy_s()
        retried = None
        while not isinstance(retried, Position):
            retried = await outcome(a.broker.append("r", b"1", history=HISTORY, dedup=Dedup("s", "1")))
        assert retried.offset == 2
        page = await a.broker.read("r", 0, 10)
        assert [entry.payload for entry in page.entries] == [b"0", b"1"]
        assert a.sink.events == []


@pytest.mark.parametrize("freeze", ["SIGSTOP", "CLIENT PAUSE ALL"])
async def test_a_frozen_redis_is_noticed_in_time_and_heals(server: RedisServer, freeze: str) -> None:
    async with running(broker(server.url, **PROBED)) as a:
        await a.broker.subscribe("room:r")
        if freeze == "SIGSTOP":
            server.pause()
        else:
            server.command("CLIENT", "PAUSE", 5000, "ALL")
        start_s = time.monotonic()
        await a.sink.wait_for(lambda: a.sink.events)
        assert time.monotonic() - start_s < NOTICED_S + SLACK_S + busy_s()
        assert "deaf or frozen" in a.broker.reason and not a.broker.ready
        assert isinstance(await outcome(a.broker.append("r", b"x", history=HISTORY)), Unavailable)
        await eventually(lambda: "no answer within 1 s" in a.broker.reason)
        server.resume()
        await healed(a, OUTAGE)


async def test_a_half_open_connection_is_noticed_in_time_and_heals(server: RedisServer) -> None:
    async with TcpProxy(server.port).running() as proxy, running(broker(proxy.url, **PROBED)) as a:
        await a.broker.subscribe("room:r")
        proxy.hold_up()
        proxy.hold_down()
        start_s = time.monotonic()
        await a.sink.wait_for(lambda: a.sink.events)
        assert time.monotonic() - start_s < NOTICED_S + SLACK_S + busy_s()
        proxy.release()
        await healed(a, OUTAGE)


async def test_a_deaf_subscriber_is_noticed_though_commands_are_answered(server: RedisServer) -> None:
    async with TcpProxy(server.port).running() as proxy, running(broker(proxy.url, **PROBED)) as a:
        await a.broker.subscribe("room:r")
        start_s = time.monotonic()
        proxy.deafen(2)  # the first one carries the commands
        missed = await a.broker.append("r", b"missed", history=HISTORY)
        await a.sink.wait_for(lambda: a.sink.events)
        assert time.monotonic() - start_s < NOTICED_S + SLACK_S + busy_s()
        assert "deaf or frozen" in a.broker.reason and a.sink.deliveries == []
        await a.sink.wait_for(lambda: ("restored",) in a.sink.events)
        assert (await a.broker.read("r", 0, 10)).top == missed
        assert proxy.accepted == 4
        await healed(a, OUTAGE)


async def test_a_busy_redis_fails_fast_and_heals_after_script_kill() -> None:
    with RedisServer(busy_reply_threshold="50") as server:
        async with running(broker(server.url, **PROBED, publish_timeout_s=0.8)) as a:
            await a.broker.subscribe("room:r")

            def loop_for_ever() -> None:
                with redis_py.Redis(unix_socket_path=server.socket, protocol=2) as client:
                    with pytest.raises(redis_py.ResponseError):
                        client.eval("while true do end", 0)

            foreign = threading.Thread(target=loop_for_ever)
            foreign.start()
            try:
                await a.sink.wait_for(lambda: a.sink.events)
                await eventually(lambda: "BUSY" in a.broker.reason)
                start_s = time.monotonic()
                assert isinstance(await outcome(a.broker.append("r", b"x", history=HISTORY)), BrokerError)
                assert time.monotonic() - start_s < 1.3 + SLACK_S + busy_s()
            finally:
                server.command("SCRIPT", "KILL")
                foreign.join()
            await healed(a, OUTAGE)


# Redis refuses


async def test_out_of_memory_refuses_appends_whole_and_lets_signals_pass(server: RedisServer) -> None:
    async with running(broker(server.url, **PROBED)) as a:
        await a.broker.subscribe("room:r")
        before = await a.broker.append("r", b"x", history=HISTORY)
        server.command("CONFIG", "SET", "maxmemory", "1mb")
        refused = [a.broker.append(room, b"y", history=HISTORY, dedup=Dedup("s", "k")) for room in ("r", "new")]
        signal = a.broker.publish("room:r", b"signal")
        for future in refused:
            result = await outcome(future)
            assert isinstance(result, Unavailable) and "out of memory" in str(result)
        await signal
        await a.sink.wait_count("room:r", 2)
        assert a.sink.payloads("room:r") == [b"x", b"signal"]
        assert (await a.broker.read("r", 0, 10)).top == before
        assert await a.broker.tops(["new"]) == [None]
        await asyncio.sleep(3 * HEARTBEAT_S)  # no reason to connect again
        assert a.broker.ready and a.sink.events == []
        server.command("CONFIG", "SET", "maxmemory", "0")
        assert (await a.broker.append("r", b"y", history=HISTORY, dedup=Dedup("s", "k"))).offset == 2
        await healed(a, [])


async def test_a_demoted_redis_is_left_and_a_promoted_one_is_taken(server: RedisServer) -> None:
    async with running(broker(server.url, **PROBED)) as a:
        await a.broker.subscribe("room:r")
        start_s = time.monotonic()
        server.command("REPLICAOF", "127.0.0.1", "1")
        await a.sink.wait_for(lambda: a.sink.events)
        assert time.monotonic() - start_s < NOTICED_S + SLACK_S + busy_s()
        await eventually(lambda: "is a replica" in a.broker.reason)
        with pytest.raises(Unavailable, match="is a replica"):
            await a.broker.append("r", b"x", history=HISTORY)
        server.command("REPLICAOF", "NO", "ONE")
        await healed(a, OUTAGE)


async def test_a_publish_refused_by_a_replica_rebuilds_at_once(server: RedisServer) -> None:
    async with running(broker(server.url)) as a:
        server.command("REPLICAOF", "127.0.0.1", "1")
        result = await outcome(a.broker.append("r", b"x", history=HISTORY))
        assert isinstance(result, Unavailable) and "replica" in str(result)
        await a.sink.wait_for(lambda: a.sink.events)
        server.command("REPLICAOF", "NO", "ONE")
        await a.sink.wait_for(lambda: ("restored",) in a.sink.events)


async def test_no_connection_left_is_a_reason_and_heals(server: RedisServer) -> None:
    async with running(broker(server.url)) as a:
        server.command("CONFIG", "SET", "maxclients", len(server.client.client_list()))
        async with running(broker(server.url, "b"), wait_ready=False) as b:
            await b.sink.wait_for(lambda: b.sink.events)
            assert re.search("max number of clients|maxclients", b.broker.reason)
            await a.broker.append("r", b"x", history=HISTORY)
            server.command("CONFIG", "SET", "maxclients", 100)
            await b.broker.subscribe("room:r")
            await healed(b, ["interrupted", "restored"])
        assert a.sink.events == []


async def test_an_evicting_policy_is_refused_until_it_is_changed(server: RedisServer) -> None:
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    async with running(broker(server.url), wait_ready=False) as a:
        await a.sink.wait_for(lambda: a.sink.events)
        assert not a.broker.ready and "maxmemory-policy allkeys-lru" in a.broker.reason
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await a.broker.wait_ready()
        server.command("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
        server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await eventually(lambda: "volatile-ttl" in a.broker.reason)


async def test_missing_rights_are_named(server: RedisServer) -> None:
    server.command("ACL", "SETUSER", "u", "reset", "on", ">p", *acl_rules(), "-xadd")
    async with running(broker(server.url.replace("unix://", "unix://u:p@"))) as a:
        result = await outcome(a.broker.append("r", b"x", history=HISTORY))
        assert isinstance(result, Unavailable) and "acl.py" in str(result)
        assert await a.broker.append("r", b"x", history=History(max_entries=0))


async def test_a_user_who_may_not_subscribe_any_more_is_a_reason_and_heals(server: RedisServer) -> None:
    async with running(broker(server.url)) as a:
        await a.broker.subscribe("room:r")
        server.command("ACL", "SETUSER", "default", "resetchannels")  # Redis ends the connection that has channels
        await eventually(lambda: "NOPERM" in a.broker.reason)
        server.command("ACL", "SETUSER", "default", "allchannels")
        await healed(a, OUTAGE)


async def test_rotated_credentials_are_read_again_without_a_storm(server: RedisServer, tmp_path: Any) -> None:
    secret = tmp_path / "password"
    secret.write_text("old\n")
    server.command("ACL", "SETUSER", "u", "reset", "on", ">old", *acl_rules())
    url = server.url.replace("unix://", "unix://u:@")
    async with running(broker(url, password_file=str(secret))) as a:
        await a.broker.subscribe("room:r")
        server.command("ACL", "DELUSER", "u")
        server.command("ACL", "SETUSER", "u", "reset", "on", ">new", *acl_rules())
        await eventually(lambda: "WRONGPASS" in a.broker.reason)
        assert "old" not in a.broker.reason
        await asyncio.sleep(0.5)
        assert a.broker.stats.reconnects < 15
        secret.write_text("new\n")
        await healed(a, OUTAGE)
        secret.unlink()
        server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await eventually(lambda: "password" in a.broker.reason)


# What arrives is not ours, or too much, or kills the reader


async def test_foreign_bytes_are_dropped_and_counted(server: RedisServer) -> None:
    async with running(broker(server.url)) as a:
        await a.broker.subscribe("room:r")
        hostile = [
            b"",
            b"garbage",
            b"\x01",
            b"\x01\xc1",
            b"\x01\x95\x01",
            b"\x01\x91\x63",
            b'{"a":1}',
            b"\x01\xdd" + b"\xff" * 4,
        ]
        for data in hostile:
            server.command("PUBLISH", "roomcast:{0}:room:r", data)
        await healed(a, [])
        assert a.broker.stats.foreign == len(hostile)
        assert len(a.sink.deliveries) == 1


async def test_a_newer_envelope_asks_for_the_room_to_be_verified(server: RedisServer) -> None:
    async with running(broker(server.url)) as a:
        await a.broker.subscribe("room:r")
        server.command("PUBLISH", "roomcast:{0}:room:r", b"\x02new")
        await a.sink.wait_for(lambda: a.sink.events)
        assert a.sink.events == [("resubscribed", ["room:r"])]
        assert a.broker.stats.newer == 1 and a.broker.stats.foreign == 0


async def test_an_overflowing_output_buffer_costs_the_connection_not_the_node(server: RedisServer) -> None:
    server.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 512kb 5")
    async with running(broker(server.url)) as a:
        await a.broker.subscribe("room:r")
        for _ in range(1000):  # blocks this loop, so the node reads nothing meanwhile
            if server.info("stats").get("client_output_buffer_limit_disconnections"):
                break
            server.command("PUBLISH", "roomcast:{0}:room:r", bytes(65536))
        await healed(a, OUTAGE)


class FailingSink(RecordingSink):
    """Breaks the promise of never raising, once."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method: str | None = method

    def _fail(self, method: str) -> None:
        if self.method == method:
            self.method = None
            raise RuntimeError("by intention")

    def deliver(self, deliveries: list[Delivery]) -> None:
        self._fail("deliver")
        super().deliver(deliveries)

    def resubscribed(self, channels: Sequence[str]) -> None:
        self._fail("resubscribed")
        super().resubscribed(channels)


async def test_a_reader_that_dies_is_logged_counted_and_built_again(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    node = broker(server.url)
    sink = FailingSink("deliver")
    await node.start(sink)
    await node.subscribe("room:r")
    start_s = time.monotonic()
    await node.append("r", b"lost on this node", history=HISTORY)
    await sink.wait_for(lambda: ("restored",) in sink.events)
    assert time.monotonic() - start_s < 1 + busy_s()
    await healed(Node(node, sink), OUTAGE)
    assert node.stats.reader_restarts == 1
    assert "by intention" in caplog.text
    await node.close()


async def test_a_link_that_dies_is_logged_counted_and_started_again(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    node = broker(server.url)
    sink = FailingSink("resubscribed")
    await node.start(sink)
    await node.subscribe("room:r")
    server.command("CLIENT", "KILL", "TYPE", "pubsub")
    await healed(Node(node, sink), ["interrupted", "resubscribed", "restored"])
    assert node.stats.task_restarts == 1
    assert "the link to Redis died" in caplog.text
    await node.close()


# Replies lost, late and in pieces


async def test_a_lost_reply_is_an_unknown_outcome_and_a_retry_elsewhere_finds_the_entry(server: RedisServer) -> None:
    async with (
        TcpProxy(server.port).running() as proxy,
        running(broker(proxy.url)) as a,
        running(broker(server.url, "b")) as b,
    ):
        await b.broker.subscribe("room:r")
        proxy.hold_down()
        lost = a.broker.append("r", b"x", history=HISTORY, dedup=Dedup("s", "k"))
        await b.sink.wait_count("room:r", 1)
        proxy.cut()
        assert isinstance(await outcome(lost), OutcomeUnknown)
        position = await b.broker.append("r", b"x", history=HISTORY, dedup=Dedup("s", "k"))
        assert position.offset == 1
        assert (await b.broker.read("r", 0, 10)).top == position


async def test_a_late_reply_reaches_nobody_else(server: RedisServer) -> None:
    async with TcpProxy(server.port).running() as proxy, running(broker(proxy.url, publish_timeout_s=0.8)) as a:
        proxy.hold_down()
        late = a.broker.append("r", b"late", history=HISTORY)
        reads = [asyncio.ensure_future(a.broker.read(f"r{i}", 0, 10)) for i in range(5)]
        assert isinstance(await outcome(late), OutcomeUnknown)
        for read in reads:
            with pytest.raises(Unavailable, match="did not answer"):
                await read
        proxy.release()
        assert (await a.broker.append("r", b"next", history=HISTORY)).offset == 2
        await a.broker.append("r1", b"one", history=HISTORY)
        assert [entry.payload for entry in (await a.broker.read("r1", 0, 10)).entries] == [b"one"]
        assert [entry.payload for entry in (await a.broker.read("r", 0, 10)).entries] == [b"late", b"next"]


async def test_callers_that_give_up_do_not_shift_the_replies_of_others(server: RedisServer) -> None:
    async with running(broker(server.url)) as a:
        for i in range(20):
            await a.broker.append(f"r{i}", b"%d" % i, history=HISTORY)
        for round_ in range(20):
            reads = [asyncio.ensure_future(a.broker.read(f"r{i}", 0, 10)) for i in range(20)]
            await asyncio.sleep(0)
            given_up = set(random.Random(round_).sample(range(20), 10))
            for i in given_up:
                reads[i].cancel()
            for i in set(range(20)) - given_up:
                assert [entry.payload for entry in (await reads[i]).entries] == [b"%d" % i]


async def test_replies_in_single_bytes_are_the_same_replies(server: RedisServer) -> None:
    async with TcpProxy(server.port).running() as proxy:
        proxy.chunk = 1
        async with running(broker(proxy.url)) as a:
            await a.broker.subscribe("room:r")
            positions = await asyncio.gather(*(a.broker.append("r", b"%d" % i, history=HISTORY) for i in range(20)))
            await a.sink.wait_count("room:r", 20)
            entries = a.sink.entries("r")
            assert [Position(e.epoch, e.offset, e.tag) for e in entries] == positions


ALL = History(max_entries=10_000)


async def test_a_connection_cut_at_any_byte_loses_and_doubles_nothing_unsaid(server: RedisServer) -> None:
    draw = random.Random(4)
    sent: dict[bytes, list[Position | BrokerError]] = {}
    async with TcpProxy(server.port).running() as proxy, running(broker(proxy.url, unavailable_after_s=0.1)) as a:
        await a.broker.subscribe("room:r")
        for round_ in range(40):
            proxy.cut_after(draw.randrange(1, 3000))
            given = {}
            for i in range(30):
                payload = b"%d:%d" % (round_, i)
                given[payload] = a.broker.append("r", payload, history=ALL, dedup=Dedup("s", payload.decode()))
                if draw.random() < 0.3:
                    await asyncio.sleep(0)
            for payload, future in given.items():
                sent[payload] = [await outcome(future)]
            proxy.cut_after(None)
            await a.sink.in_time(a.broker.wait_ready())
            for payload, results in sent.items():
                if not isinstance(results[-1], Position):
                    again = a.broker.append("r", payload, history=ALL, dedup=Dedup("s", payload.decode()))
                    results.append(await outcome(again))
        entries = {entry.payload: entry for entry in (await a.broker.read("r", 0, 10_000)).entries}
        top = (await a.broker.read("r", None, 0)).top
    assert len(entries) == top.offset  # nothing twice
    first_try = [payload for payload, results in sent.items() if isinstance(results[0], Position)]
    assert 100 < len(first_try) < 1200
    for payload, results in sent.items():
        if isinstance(results[-1], Position):
            assert results[-1].tag == entries[payload].tag
        else:
            assert any(isinstance(result, OutcomeUnknown) for result in results) or payload not in entries
    offsets = [entries[payload].offset for payload in first_try]
    assert offsets == sorted(offsets)  # in the order of the calls


async def test_a_reconnecting_node_backs_off_and_begins_anew_after_a_confirmed_probe(
    server: RedisServer,
) -> None:
    async with running(broker(server.url, heartbeat_s=1, backoff_min_s=0.05, backoff_max_s=10)) as a:
        times = []
        for outages in range(1, 5):
            start_s = time.monotonic()
            server.command("CLIENT", "KILL", "TYPE", "pubsub")
            await a.sink.wait_for(partial(restored, a, outages))
            times.append(time.monotonic() - start_s)
        assert times[3] >= 0.05 * 8 / 2  # doubled three times, at least half of it
        seen_s = a.broker.stats.probe_confirmed_at_s
        await eventually(lambda: a.broker.stats.probe_confirmed_at_s > seen_s)
        start_s = time.monotonic()
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
        await a.sink.wait_for(partial(restored, a, 5))
        assert time.monotonic() - start_s < 0.8 / 2 + busy_s()  # what the next one would have been at least


# With the times of production


@pytest.mark.slow
async def test_a_frozen_redis_is_noticed_within_five_seconds_by_default(server: RedisServer) -> None:
    async with running(RedisBroker(server.tcp_url, node_id="a")) as a:
        await a.broker.subscribe("room:r")
        noticed_s = []
        for times in range(1, 4):
            await asyncio.sleep(random.uniform(0, 2))  # anywhere between two heartbeats
            start_s = time.monotonic()
            server.pause()
            await a.sink.wait_for(lambda: not a.broker.ready, 10)
            noticed_s.append(time.monotonic() - start_s)
            server.resume()
            await a.sink.wait_for(partial(restored, a, times), 10)
        assert max(noticed_s) <= 5 + 0.25 + busy_s(), noticed_s


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_subscribers_killed_for_a_minute_miss_nothing_that_is_not_in_the_log(server: RedisServer) -> None:
    async with running(RedisBroker(server.url, node_id="a")) as a:
        await a.broker.subscribe("room:r")
        start_s = next_kill_s = time.monotonic()
        while time.monotonic() < start_s + 60:
            if time.monotonic() > next_kill_s:
                next_kill_s += 3
                server.command("CLIENT", "KILL", "TYPE", "pubsub")
            for _ in range(20):
                a.broker.append("r", b"x" * 100, history=ALL)
            await asyncio.sleep(0.01)
        await a.broker.wait_ready()
        last = await a.broker.append("r", b"last", history=ALL)
        await a.sink.wait_for(lambda: a.sink.entries("r")[-1].offset == last.offset)
        offsets = [entry.offset for entry in a.sink.entries("r")]
        assert offsets == sorted(set(offsets))  # holes, but no repetition and no disorder
        kills = a.sink.names().count("resubscribed")
        assert 15 <= kills <= 21 and a.sink.names() == OUTAGE * kills
        assert a.broker.stats.unavailable == a.broker.stats.outcomes_unknown == 0
