"""Several workers on one port: real processes, killed, drained, replaced, and refused."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.workers import FIRST_WAIT_S, MAX_QUICK_ENDS, STEADY_S, Patience
from tests.support.busy import busy_s
from tests.support.machine import WORKERS, Machine, ports_in_a_row
from tests.support.node import ROOT, NodeServer, lasting_port
from tests.support.peer import Peer
from tests.support.prometheus import Prometheus
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually, eventually_sync

"""Many processes start here one after the other, on a machine that may have much else to do."""


@asynccontextmanager
async def clients(machine: Machine, count: int) -> AsyncIterator[list[Peer]]:
    found = [Peer(f"u{number}") for number in range(count)]
    try:
        for each in found:
            await each.connect(machine.ws_url)
        yield found
    finally:
        for each in found:
            await each.close()


@pytest.mark.system
async def test_workers_share_a_port_evenly_and_hear_one_another(redis_server: RedisServer, prefix: str) -> None:
    with Machine(redis_server, prefix) as machine:
        async with clients(machine, 60) as found:
            names = {str(each.frames[0]["node"]).rsplit(".", 1)[0] for each in found}
            assert names == {"big-0", "big-1"}
            held = [machine.connections(number) for number in range(WORKERS)]
            # 60 throws of a coin: fewer than 12 on a side once in half a million.
            assert sum(held) == 60 and min(held) >= 12
            assert machine.get("/metrics")[0] == 404, "it would be one worker's, by chance"
            for each in found:
                await each.join("r")
            await found[0].ask("message", room="r", data="to all")
            for each in found:
                await each.until(lambda each=each: each.views["r"].data == ["to all"])  # type: ignore[misc]
        logged = {record.get("worker") for record in machine.log_records()}
        assert {None, 0, 1} <= logged, "lines name their worker, but for the supervisor's"


@pytest.mark.system
async def test_a_worker_that_is_killed_comes_back_and_the_others_go_on(redis_server: RedisServer, prefix: str) -> None:
    with Machine(redis_server, prefix) as machine:
        async with clients(machine, 20):
            before = machine.worker_pids
            held = machine.connections(1)
            os.kill(before[0], signal.SIGKILL)
            await eventually(lambda: len(machine.worker_pids) == WORKERS and before[0] not in machine.worker_pids, 30)
            await machine.wait_ready(60)
            assert machine.connections(1) == held and machine.connections(0) == 0
            assert "worker 0 ended with SIGKILL: it is started again in 0.1 s" in machine.log
            async with clients(machine, 30):
                assert machine.connections(0) > 0


@pytest.mark.system
def test_the_shipped_prometheus_finds_every_worker(redis_server: RedisServer, prefix: str) -> None:
    with Machine(redis_server, prefix) as machine:
        targets = [f"127.0.0.1:{machine.metrics_port + number}" for number in range(WORKERS)]
        with Prometheus(targets) as prometheus:
            eventually_sync(lambda: prometheus.query('count(up{job="roomcast"} == 1)') == [WORKERS], 60)
            assert prometheus.query('count(roomcast_broker_ready{job="roomcast"} == 1)') == [WORKERS]


class Impatient(Machine):
    arguments = (
        "-c",
        "import sys; from server import workers; workers.SILENT_S = 2; "
        "sys.argv[1:] = ['serve']; from server.cli import main; main()",
    )


@pytest.mark.system
def test_a_worker_that_hangs_is_killed_and_comes_back(redis_server: RedisServer, prefix: str) -> None:
    with Impatient(redis_server, prefix) as machine:
        before = machine.worker_pids
        os.kill(before[1], signal.SIGSTOP)
        eventually_sync(lambda: len(machine.worker_pids) == WORKERS and before[1] not in machine.worker_pids, 30)
        assert "worker 1 hangs, it said nothing for 2 s: it is killed" in machine.log
        eventually_sync(machine.ready, 30)
        assert before[0] in machine.worker_pids


@pytest.mark.system
async def test_sigterm_drains_all_workers_at_the_same_time(redis_server: RedisServer, prefix: str) -> None:
    with Machine(redis_server, prefix, drain_s=2) as machine:
        async with clients(machine, 200) as found:
            began_s = time.monotonic()
            stopped = asyncio.ensure_future(machine.stopped(20))
            await eventually(lambda: refused(machine.port))
            assert "roomcast_" in machine.of_worker(0, "/metrics")[1], "metrics are there while it drains"
            assert await stopped == 0
            assert time.monotonic() - began_s < 2 + 8 + busy_s(), "each alone may take the drain and a little"
            assert {(each.told("drain"), each.close_code) for each in found} == {(1, 1012)}


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.system
async def test_a_second_signal_leaves_at_once(redis_server: RedisServer, prefix: str) -> None:
    with Machine(redis_server, prefix, drain_s=60) as machine:
        async with clients(machine, 200):
            workers = machine.worker_pids
            machine.terminate()
            await eventually(lambda: refused(machine.port))
            await machine.stopped(6)
            assert not any(alive(pid) for pid in workers)


@pytest.mark.system
def test_workers_end_with_a_supervisor_that_is_killed(redis_server: RedisServer, prefix: str) -> None:
    with Machine(redis_server, prefix) as machine:
        workers = machine.worker_pids
        machine.kill()
        eventually_sync(lambda: not any(alive(pid) for pid in workers), 10)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.system
def test_sighup_replaces_one_worker_after_the_other(redis_server: RedisServer, prefix: str) -> None:
    with Machine(redis_server, prefix) as machine:
        before = set(machine.worker_pids)
        os.kill(machine.pid, signal.SIGHUP)
        served = []

        def replaced() -> bool:
            served.append(not refused(machine.port))
            now = set(machine.worker_pids)
            return len(now) == WORKERS and not now & before

        eventually_sync(replaced, 60)
        assert all(served), "somebody listens all the time"
        eventually_sync(machine.ready, 30)


@pytest.mark.system
def test_what_cannot_start_is_told_once_and_what_dies_again_and_again_is_given_up(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("import os\nos.kill(os.getpid(), 6)\n")
    said = serve("--app", "broken:hub", "--broker", redis_server.url, cwd=tmp_path)
    assert said.returncode == 1
    assert said.stderr.count("worker 0 ended with SIGABRT: it is started again") == MAX_QUICK_ENDS - 1
    assert f"worker 0 ended {MAX_QUICK_ENDS} times within 10 s of its start, at last with SIGABRT" in said.stderr
    assert "worker 1" not in said.stderr, "the others are not even begun"
    told = serve("--app", "nowhere:hub", "--broker", redis_server.url, cwd=tmp_path)
    assert told.returncode == 2
    assert told.stderr.count("there is no module nowhere here") == 1, told.stderr


@pytest.mark.system
def test_a_single_node_keeps_its_metrics_off_the_port_of_its_clients_if_told_to() -> None:
    port = ports_in_a_row(1)
    with NodeServer(metrics_port=port) as node:
        apart = NodeServer(port=port)
        try:
            for path, status in (("/metrics", 404), ("/readyz", 200), ("/roomcast.js", 200)):
                assert node.get(path)[0] == status
            for path, status in (("/metrics", 200), ("/readyz", 200), ("/healthz", 200), ("/ws", 404), ("/demo", 404)):
                assert apart.get(path)[0] == status
        finally:
            apart.__exit__()


def serve(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ROOMCAST_")}
    ports = ("--port", str(lasting_port()), "--metrics-port", str(ports_in_a_row(WORKERS)))
    return subprocess.run(
        [sys.executable, "-m", "server", "serve", "--dev", "--workers", str(WORKERS), *ports, *arguments],
        cwd=cwd,
        env=environ | {"PYTHONPATH": str(ROOT), "_ROOMCAST_RELOADED": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "2 workers would not hear one another with memory://: name a Redis with --broker redis://"),
        (
            ("--broker", "redis://h", "--port", "{taken}"),
            "port {taken} on 127.0.0.1 is in use: stop what",
        ),
        (("--broker", "redis://h", "--metrics-port", "{taken}"), "or choose another --metrics-port"),
        (("--broker", "redis://h", "--port", "{free}", "--metrics-port", "{free}"), "is that of the clients: choose"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(arguments: tuple[str, ...], said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        free = ports_in_a_row(1)
        result = serve(*(each.format(taken=taken, free=free) for each in arguments))
        assert (result.returncode, result.stdout) == (2, "")
        assert said.format(taken=taken) in result.stderr and len(result.stderr.splitlines()) == 1


@given(st.lists(st.floats(0, 2 * STEADY_S), max_size=30))
def test_patience_ends_after_five_early_ends_in_a_row_and_only_then(lives_s: list[float]) -> None:
    patience, early = Patience(), 0
    for lived_s in lives_s:
        early = 0 if lived_s >= STEADY_S else early + 1
        wait_s = patience.wait_s(lived_s)
        if wait_s is None:
            assert MAX_QUICK_ENDS - 1 <= early <= MAX_QUICK_ENDS
            break
        assert FIRST_WAIT_S <= wait_s <= 2
        assert early < MAX_QUICK_ENDS
