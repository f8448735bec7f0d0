"""What clients notice when Redis refuses: rows B12, B13, B19, B20 and B23 of the fault catalogue."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from broker.redis.acl import acl_rules
from broker.redis.keys import Keys
from tests.support.busy import busy_s
from tests.support.cluster import SCALED, Traffic, cluster
from tests.support.figures import note
from tests.support.node import NodeServer
from tests.support.peer import Peer
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

pytestmark = [pytest.mark.redis, pytest.mark.system]


async def test_a_redis_out_of_memory_refuses_messages_and_carries_the_rest() -> None:
    """B12: nobody is cut off, what is not logged passes, and not one half of a message is left."""
    async with cluster(2) as world, Traffic(world, "r").running() as traffic:
        await traffic.progress()
        one, other = await world.peers_everywhere("r")
        world.redis.command("CONFIG", "SET", "maxmemory", "1mb")
        reply = await one.ask("message", room="r", data="too much", key="too-much")
        assert (reply["ok"], reply["code"]) == (False, "unavailable") and "out of memory" in reply["message"]
        await one.ask("typing", room="r", typing=True)
        await other.until(lambda: any(frame.get("type") == "typing" for frame in other.frames))
        stands = other.views["r"].position
        assert (await one.ask("history", room="r", limit=1))["messages"][-1]["offset"] == stands.offset
        await eventually(lambda: traffic.refused)
        world.redis.command("CONFIG", "SET", "maxmemory", "0")
        await world.healed("B12 Redis out of memory", "r", time.monotonic())
        assert {code for code, _ in traffic.refused} == {"unavailable"}
        assert set(traffic.resets) == {0}
        assert all(member.told("degraded") == 0 for member in world.members("r"))


async def test_a_node_that_finds_no_place_in_redis_waits_and_the_other_works_on() -> None:
    """B13: maxclients."""
    async with cluster(2) as world, Traffic(world, "r").running() as traffic:
        await traffic.progress()
        full, fine = world.nodes
        watcher, other = await world.peers_everywhere("r")
        clients = world.redis.client.client_list()
        world.redis.command("CONFIG", "SET", "maxclients", len(clients) - 2)
        [name] = {c["name"].rpartition(":")[0] for c in clients if await node_id(full) in c["name"]}
        for client in clients:
            if client["name"].startswith(name):
                world.redis.command("CLIENT", "KILL", "ID", client["id"])
        await watcher.until(lambda: watcher.told("degraded"))
        assert "max" in await world.unready(full, "clients")
        await world.said(other, "r")
        assert fine.ready()
        world.redis.command("CONFIG", "SET", "maxclients", 1000)
        await world.healed("B13 maxclients", "r", time.monotonic())
        assert other.told("degraded") == 0 and watcher.told("degraded") == watcher.told("restored") == 1
        assert set(traffic.resets) == {0}
        assert full.metric("roomcast_broker_reconnects_total") < 40


async def node_id(node: NodeServer) -> str:
    one = Peer("who")
    welcome = await one.connect(node.ws_url)
    await one.close()
    return str(welcome["node"])


async def test_a_silent_demotion_is_noticed_and_the_promoted_server_taken() -> None:
    """B19: the old master still answers PING and PUBLISH; only what writes can tell."""
    with RedisServer() as old, RedisServer() as new:
        new.command("REPLICAOF", "127.0.0.1", old.port)
        await eventually(lambda: new.info("replication")["master_link_status"] == "up", 10)
        async with (
            TcpProxy(old.port).running() as way,
            cluster(2, redis_server=new, broker=way.url) as world,
        ):
            members = await world.peers_everywhere("r")
            for _ in range(20):
                await world.said(members[0], "r")
            assert old.command("WAIT", 1, 5000) == 1
            demoted_s = time.monotonic()
            old.command("REPLICAOF", "127.0.0.1", new.port)
            new.command("REPLICAOF", "NO", "ONE")
            way.retarget(new.port)
            for one in members:  # nobody writes: it is the probe that notices
                await one.until(lambda one=one: one.told("degraded"), world.noticed_s)  # type: ignore[misc]
            note("B19 silent demotion: noticed after", time.monotonic() - demoted_s, "s")
            await world.healed("B19 silent demotion", "r", demoted_s)
            assert new.subscribers(Keys().channel("room:r")) == 2
            assert [one.views["r"].resets for one in members] == [0, 0]


async def test_a_redis_that_may_evict_is_refused_until_it_is_changed() -> None:
    """B20: the node starts, says why it is not ready, tells who connects, and needs no restart."""
    with RedisServer(maxmemory="64mb", maxmemory_policy="allkeys-lru") as server:
        node = NodeServer(broker=server.url, **SCALED)
        one = Peer("early")
        try:
            node.launch()
            await eventually(lambda: b"maxmemory-policy allkeys-lru" in answer(node), 20)
            assert node.get("/readyz")[0] == 503 and node.get("/healthz")[0] == 200
            await one.connect(node.ws_url)
            await one.until(lambda: one.told("degraded"))
            reply, seconds = await one.timed("join", room="r")
            assert (reply["ok"], reply["code"]) == (False, "unavailable") and seconds < 1.5 + busy_s()
            server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
            changed_s = time.monotonic()
            await one.until(lambda: one.told("restored"))
            note("B20 eviction policy corrected: healed after", time.monotonic() - changed_s, "s")
            assert (await one.join("r"))["ok"] and (await one.ask("message", room="r", data=1))["ok"]
            await node.wait_ready()
            one.check()
        finally:
            await one.close()
            node.__exit__()


def answer(node: NodeServer) -> bytes:
    try:
        return node.get("/readyz")[1]
    except OSError:
        return b""


async def test_rotated_credentials_are_taken_from_the_file_without_a_restart(tmp_path: Path) -> None:
    """B23, as the least privileged user of broker/redis/acl.py."""
    secret = tmp_path / "password"
    secret.write_text("old\n")
    with RedisServer() as server:
        server.command("ACL", "SETUSER", "node", "reset", "on", ">old", *acl_rules())
        url = server.url.replace("unix://", "unix://node:@")
        async with (
            cluster(2, redis_server=server, broker=url, settings={"broker_password_file": secret}) as world,
            Traffic(world, "r").running() as traffic,
        ):
            await traffic.progress()
            server.command("ACL", "DELUSER", "node")
            server.command("ACL", "SETUSER", "node", "reset", "on", ">new", *acl_rules())
            for node in world.nodes:
                reason = await world.unready(node, "WRONGPASS", 5)
                assert "old" not in reason
            secret.write_text("new\n")
            await world.healed("B23 credentials rotated", "r", time.monotonic())
            assert traffic.resets == [0, 0]
            for node in world.nodes:
                assert node.metric("roomcast_broker_reconnects_total") < 20
                assert ">old" not in node.log and '"old"' not in node.log
