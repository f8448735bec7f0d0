"""Redis, alone or as a cluster of masters, and two nodes that use it: nodes on the first core, Redis on the last."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import redis

from loadtests.errors import SetupError
from loadtests.processes import Child, free_port, wait_for_port, wait_until_ready

SLOTS = 16384
_BARE = str.maketrans("", "", " '")
START_S = 20.0
HOST = "127.0.0.1"


class Master(NamedTuple):
    child: Child
    port: int
    client: redis.Redis

    def calls(self) -> int:
        """Calls of scripts so far. What a script does inside it is not counted."""
        return int(self.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))

    def reads(self) -> int:
        """How often it read from a connection so far."""
        return int(self.client.info("stats")["total_reads_processed"])

    def cpu_s(self) -> float:
        found = self.client.info("cpu")
        return float(found["used_cpu_sys"]) + float(found["used_cpu_user"])

    def held(self) -> tuple[int, int]:
        """Rooms with a log, and users online, on this master."""
        rooms = sum(1 for _ in self.client.scan_iter("roomcast:{*}:meta:*", count=1000))
        users = [key for key in self.client.scan_iter("roomcast:{*}:presence:all", count=1000)]
        return rooms, sum(int(self.client.hlen(key)) - 2 for key in users)


class Node(NamedTuple):
    child: Child
    port: int


@contextmanager
def redis_and_nodes(masters: int) -> Iterator[tuple[list[Master], list[Node]]]:
    """The masters, and two nodes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="roomcast-loadtests-")))
        cores = sorted(os.sched_getaffinity(0))
        servers = [_start_redis(stack, folder, number, masters > 1, cores[-1]) for number in range(masters)]
        hosts = ",".join(f"{HOST}:{server.port}" for server in servers)
        if masters > 1:
            _form(servers)
        broker = f"redis+cluster://{hosts}" if masters > 1 else f"redis://{hosts}/0"
        nodes = []
        for number in range(2):
            port = free_port()
            environment = {
                "ROOMCAST_HOST": HOST,
                "ROOMCAST_PORT": str(port),
                "ROOMCAST_BROKER": broker,
                "ROOMCAST_DEV": "1",
                "ROOMCAST_LOG_LEVEL": "warning",
                "ROOMCAST_PRESENCE_BROADCAST": "none",
                "ROOMCAST_REQUESTS_PER_S": "1000000",
                "ROOMCAST_REQUESTS_BURST": "1000000",
            }
            command: list[str | Path] = [sys.executable, "-m", "server", "serve"]
            child = Child(f"node-{number}", command, folder=folder, core=cores[0], environment=environment)
            stack.enter_context(child)
            wait_until_ready(port, child, timeout_s=START_S)
            nodes.append(Node(child, port))
        yield servers, nodes


def _start_redis(stack: ExitStack, folder: Path, number: int, clustered: bool, core: int) -> Master:
    port, place = free_port(), folder / f"redis-{number}"
    place.mkdir()
    command: list[str | Path] = ["redis-server", "--port", str(port), "--bind", HOST, "--appendonly", "no"]
    command += ["--save", ""]
    command += ["--maxmemory-policy", "noeviction", "--dir", place]
    if clustered:
        command += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    child = stack.enter_context(Child(f"redis-{number}", command, folder=place, core=core))
    wait_for_port(port, child, timeout_s=START_S)
    return Master(child, port, stack.enter_context(redis.Redis(HOST, port, protocol=2, decode_responses=True)))


def _form(servers: Sequence[Master]) -> None:
    """Give each master its part of the slots and let them meet."""
    for number, (_, _, client) in enumerate(servers):
        first, end = (SLOTS * step // len(servers) for step in (number, number + 1))
        _command(client, "CLUSTER ADDSLOTSRANGE", first, end - 1)
        _command(client, "CLUSTER SET-CONFIG-EPOCH", number + 1)
        bus = servers[0].client.config_get("cluster-port")["cluster-port"]
        if number:
            _command(client, "CLUSTER MEET", HOST, servers[0].port, bus)
    until_s = time.monotonic() + START_S
    while not all(_covered(server) for server in servers):
        if time.monotonic() > until_s:
            raise SetupError("the masters did not form a cluster: look for other servers on their ports")
        time.sleep(0.05)


def _command(client: redis.Redis, *arguments: object) -> Any:
    return client.execute_command(*arguments)  # type: ignore[no-untyped-call]


def _covered(server: Master) -> bool:
    """Whether it knows an owner of every slot. The reply is text or, parsed already, a mapping."""
    return f"cluster_slots_ok:{SLOTS}" in str(_command(server.client, "CLUSTER INFO")).translate(_BARE)
