"""What an operator sees: ``roomcast presence`` and ``roomcast nodes`` beside real nodes, one of which is killed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import ROOT, NodeServer
from tests.support.presence import ROOM, Servers, Stage, names, servers
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

pytestmark = [pytest.mark.redis, pytest.mark.system]

ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("ROOMCAST_")}


@pytest.fixture(scope="module")
def two() -> Iterator[Servers]:
    with servers(2) as started:
        yield started


async def roomcast(*arguments: str) -> str:
    """What a command prints."""
    result = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env=ENVIRON | {"COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert result.returncode == 0, result.stderr
    return str(result.stdout)


@contextmanager
def running(output: Path, *arguments: str) -> Iterator[None]:
    """A command that goes on."""
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", *arguments], cwd=ROOT, env=ENVIRON, stdout=out, stderr=out
        )
    try:
        yield
    finally:
        process.kill()
        process.wait(10)


def told(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.read_text().splitlines()]


async def test_a_watcher_sees_a_killed_nodes_users_go_and_what_it_missed(two: Servers, tmp_path: Path) -> None:
    async with Stage(two) as stage:
        url = two.redis.url
        dying, other = stage.nodes
        gone, kept = names("gone", 3), names("kept", 2)
        await stage.open_all(gone, dying)
        await stage.open_all(kept, other)
        output = tmp_path / "out"
        with running(output, "presence", "--watch", "--json", "--broker", url):
            await eventually(lambda: output.exists() and len(told(output)) == 1, 10)
            assert told(output)[0].keys() == {"ts", "count", "users"}
            assert (told(output)[0]["count"], told(output)[0]["users"]) == (5, sorted(gone + kept))
            assert len(stage.incarnations()) == 2, "the console takes part in presence"
            dying.kill()
            stage.lost(dying)
            await eventually(lambda: len(told(output)) == 4, 10)
            assert sorted((line["user_id"], line["status"]) for line in told(output)[1:]) == [
                (user, "offline") for user in gone
            ]
            assert told(output)[3]["count"] == 2
            two.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            await stage.open("late", other)
            await eventually(lambda: len(told(output)) == 5, 10)
            assert (told(output)[4]["user_id"], told(output)[4]["status"]) == ("late", "online")
        everywhere = await roomcast("presence", "--broker", url)
        assert everywhere.split()[1:] == ["3", "here", '"kept0"', '"kept1"', '"late"']
        assert json.loads(await roomcast("presence", ROOM, "--json", "--broker", url))["count"] == 3
        listed = [json.loads(line) for line in (await roomcast("nodes", "--json", "--broker", url)).splitlines()]
        assert all(0 <= node["connections"] <= 3 and node["version"] for node in listed)
        assert (await roomcast("nodes", "--broker", url)).splitlines()[0].split() == [
            "node",
            "version",
            "up",
            "connections",
            "rooms",
        ]


async def test_who_only_looks_on_leaves_the_leases_of_nodes_alone(tmp_path: Path) -> None:
    """Nodes with long leases: a console knows nothing of that, and applies no time of its own."""
    with RedisServer() as redis_server:
        node = NodeServer(broker=redis_server.url, heartbeat_s=20, lease_s=60)
        try:
            node.launch()
            await node.wait_ready()
            key = "roomcast:{0}:presence:nodes"
            before = redis_server.client.zrange(key, 0, -1, withscores=True)
            output = tmp_path / "out"
            with running(output, "presence", "--watch", "--json", "--broker", redis_server.url):
                await eventually(lambda: output.exists() and len(told(output)) == 1, 10)
                # Its heartbeats come every two seconds, those of the node every twenty.
                run = scripts_run(redis_server)
                await eventually(lambda: scripts_run(redis_server) >= run + 2, 10)
                assert redis_server.client.zrange(key, 0, -1, withscores=True) == before
        finally:
            node.__exit__()


def scripts_run(redis_server: RedisServer) -> int:
    return int(redis_server.info("commandstats")["cmdstat_evalsha"]["calls"])
