"""compose.yaml in real containers: it comes up hardened, and is scaled 2 → 4 → 2 under load with nothing lost.

Needs root, Debian's docker.io and debootstrap; a minute of building and two of running. docs/operations.md has its
output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from roomcast_client import Ack, Roomcast
from websockets.asyncio.client import connect
from websockets.typing import Origin

from tests.compose.stack import API_KEY, POLL_S, Stack, token_of
from tests.support.certificates import self_signed
from tests.support.crowd import Crowd
from tests.support.figures import note
from tests.support.waiting import eventually, eventually_sync, patience

pytestmark = [pytest.mark.compose, pytest.mark.slow, pytest.mark.timeout(900)]

GRACE_S = 5.0
NOTICED_S = 1.0
"""A client may notice so much later than its node that the connection is gone."""
FOUND_S = 10.0
"""A16: nginx sends to added nodes, and no longer to removed ones, within this time."""
PROBE_EVERY_S = 0.2
MEMBERS = 120
SPREAD = 0.15
"""(highest − lowest) / mean of the connections per node, some time after nodes were added."""


@pytest.fixture(scope="module")
def stack(built: Stack) -> Iterator[Stack]:
    """Two nodes and all around them."""
    try:
        built.scale(2)
        built.wait_healthy("node", 2)
        yield built
    finally:
        built.down()


def test_every_container_runs_as_nobody_in_particular_and_cannot_write(stack: Stack) -> None:
    users = {"node": "10001", "nginx": "10002", "redis": "999", "prometheus": "65534"}
    for service, user in users.items():
        assert stack.execute(service, "id", "-u").strip() == user
        assert "Read-only file system" in stack.execute(service, "touch", "/usr/x")
        status = stack.execute(service, "cat", "/proc/self/status")
        assert "CapBnd:\t0000000000000000\n" in status and "NoNewPrivs:\t1\n" in status
    for container in stack.containers("node"):
        assert not any(container["NetworkSettings"]["Ports"].values()), "a node is published"


def test_the_public_port_shows_less_than_the_operators(stack: Stack) -> None:
    public, operators = f"http://127.0.0.1:{stack.port}", f"http://127.0.0.1:{stack.operators_port}"
    for path, status in {
        "/healthz": 200,
        "/readyz": 404,
        "/metrics": 404,
        "/api/v1/nodes": 404,
        "/status": 404,
    }.items():
        assert httpx.get(public + path).status_code == status, path
    for path, status in {"/readyz": 200, "/metrics": 200, "/api/v1/nodes": 401}.items():
        assert httpx.get(operators + path).status_code == status, path
    nodes = httpx.get(operators + "/api/v1/nodes", headers={"X-API-Key": API_KEY})
    assert len(nodes.json()["nodes"]) == 2, nodes.text


def test_redis_is_for_the_nodes_alone(stack: Stack) -> None:
    assert "NOAUTH" in stack.execute("redis", "redis-cli", "ping")
    as_node = ("redis-cli", "--no-auth-warning", "--user", "roomcast", "--pass", "c0ffee")
    assert "PONG" in stack.execute("redis", *as_node, "ping")
    assert "NOPERM" in stack.execute("redis", *as_node, "flushall")
    assert "noeviction" in stack.execute("redis", "sh", "/etc/roomcast/cli", "config", "get", "maxmemory-policy")
    assert "appendonly.aof" in stack.execute("redis", "ls", "/data/appendonlydir")


def test_prometheus_has_its_rules(stack: Stack) -> None:
    """Names of recorded series have a colon."""
    ask = ("promtool", "query", "instant", "http://localhost:9090", 'count({__name__=~".+:.+"})')

    def recorded() -> bool:
        time.sleep(POLL_S)
        return "=>" in stack.execute("prometheus", *ask)

    eventually_sync(recorded, 60)


async def welcoming_node(stack: Stack, user: str) -> str:
    """The node that a new connection comes to."""
    credentials = {"Authorization": f"Bearer {token_of(user)}"}
    async with connect(stack.ws_url, additional_headers=credentials, proxy=None) as client:
        node: str = json.loads(await client.recv())["node"]
        return node


class Newcomers:
    """Connect all the time, each anew: how long it took and where they came."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.welcomed: list[tuple[float, float, str]] = []
        """(when, seconds it took, node)"""
        self._failed: BaseException | None = None

    @contextlib.asynccontextmanager
    async def arriving(self) -> AsyncIterator[Newcomers]:
        task = asyncio.create_task(self._arrive())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _arrive(self) -> None:
        try:
            while True:
                start = time.monotonic()
                async with patience(FOUND_S):
                    node = await welcoming_node(self._stack, f"newcomer{len(self.welcomed)}")
                self.welcomed.append((start, time.monotonic() - start, node))
                await asyncio.sleep(PROBE_EVERY_S)
        except Exception as error:
            self._failed = error

    def nodes_since(self, when: float) -> set[str]:
        """Raises what kept a newcomer out."""
        if self._failed is not None:
            raise self._failed
        return {node for start, _, node in self.welcomed if start >= when}


async def scale(stack: Stack, nodes: int) -> float:
    """Returns when the containers run and the surplus ones are gone: the time of that."""
    await asyncio.to_thread(stack.scale, nodes)
    return time.monotonic()


def nodes_listen(stack: Stack, count: int) -> bool:
    time.sleep(POLL_S)
    return stack.logs("node").count("Uvicorn running") == count


async def metrics_of(stack: Stack, nodes: int) -> dict[str, float]:
    """Connections of every node, as Prometheus has scraped them."""

    async def scraped() -> bool:
        await asyncio.sleep(POLL_S)
        up = await asyncio.to_thread(stack.query, 'up{job="roomcast"}')
        return list(up.values()) == [1.0] * nodes

    await eventually(scraped, 40)
    return await asyncio.to_thread(stack.query, "sum by (instance) (roomcast_connections)")


async def test_scaled_from_two_to_four_to_two_under_load_nothing_is_lost(stack: Stack) -> None:
    crowd = Crowd(stack.client, members=MEMBERS)
    async with Newcomers(stack).arriving() as newcomers, crowd.talking():
        await crowd.progress()
        assert len(set(crowd.nodes.values())) == 2
        await published_by_the_backend(stack, crowd)

        await scale(stack, 4)
        await eventually(lambda: asyncio.to_thread(nodes_listen, stack, 4), 60)
        grown = time.monotonic()
        await eventually(lambda: len(newcomers.nodes_since(grown)) == 4, FOUND_S)
        note("A16: both added nodes get connections after", time.monotonic() - grown, "s")
        await asyncio.to_thread(stack.wait_healthy, "node", 4)
        await eventually(lambda: len(set(crowd.nodes.values())) == 4 and crowd.spread <= SPREAD, 240)
        note(f"rebalanced to within {crowd.spread:.0%} of the mean after", time.monotonic() - grown, "s")
        connections = await metrics_of(stack, 4)
        assert len(connections) == 4 and all(connections.values())
        await crowd.progress()
        show(stack, connections)

        shrunk = await scale(stack, 2)
        await eventually(lambda: newcomers.nodes_since(shrunk + FOUND_S), FOUND_S + 5)
        assert len(newcomers.nodes_since(shrunk)) == 2
        assert len(set(crowd.nodes.values())) == 2
        await crowd.progress()
        note("A16: the longest handshake meanwhile", max(took for _, took, _ in newcomers.welcomed), "s")
        note("A16: clients that changed their node", crowd.reconnects, "")
        await metrics_of(stack, 2)
    assert crowd.offline == [], "somebody was taken for gone"
    note("A16: messages, each seen once and in order by all", crowd.oracle.publishes, "")


async def published_by_the_backend(stack: Stack, crowd: Crowd) -> None:
    """Through the operators' port with a key; members see it as they see the others."""
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"http://127.0.0.1:{stack.operators_port}/api/v1/publish",
            json={"room": crowd.rooms[0], "data": "from the backend"},
            headers={"Authorization": f"Bearer {API_KEY}"},
        )
    assert answer.status_code == 200, answer.text
    position = answer.json()
    crowd.oracle.acked(crowd.rooms[0], "from the backend", Ack(position["epoch"], position["offset"], position["tag"]))


def show(stack: Stack, connections: dict[str, float]) -> None:
    """What docs/operations.md shows (pytest -s)."""
    print("\n" + stack.compose("ps"))
    print("roomcast_connections, asked of Prometheus:")
    for instance, value in connections.items():
        print(f"  {instance:<22}{value:.0f}")


async def test_new_nodes_take_the_place_of_old_ones_and_nobody_notices(stack: Stack) -> None:
    crowd = Crowd(stack.client, members=40)
    async with Newcomers(stack).arriving() as newcomers, crowd.talking():
        await crowd.progress()
        old = await asyncio.to_thread(stack.ids, "node")
        await asyncio.to_thread(stack.upgrade)
        new = await asyncio.to_thread(stack.ids, "node")
        assert len(new) == len(old) and not {*old} & {*new}
        await crowd.progress()
        assert newcomers.nodes_since(0)
    assert crowd.offline == []
    note("upgrade: the longest handshake meanwhile", max(took for _, took, _ in newcomers.welcomed), "s")


@pytest.mark.parametrize("service", ["redis", "nginx"])
async def test_a_restart_of_what_all_need_loses_nothing(stack: Stack, service: str) -> None:
    crowd = Crowd(stack.client, members=40)
    async with crowd.talking():
        await crowd.progress()
        start = time.monotonic()
        await asyncio.to_thread(stack.compose, "restart", service)
        await crowd.progress(timeout_s=40)
        note(f"{service} restarted, messages go through again after", time.monotonic() - start, "s")
    # On a busy machine nginx, and so everybody, may be away for longer than the grace period: then offline is right.
    assert crowd.wrongly_offline(GRACE_S - NOTICED_S) == []


async def test_https_with_a_certificate_from_outside(stack: Stack) -> None:
    trust = ssl.create_default_context(cafile=self_signed(stack.certificates))
    for path in (stack.certificates, *stack.certificates.iterdir()):
        path.chmod(0o755)  # nginx is user 10002
    await asyncio.to_thread(stack.serve_https)
    url, page = f"wss://localhost:{stack.tls_port}/ws", f"https://localhost:{stack.tls_port}"
    credentials = {"Authorization": f"Bearer {token_of('reader')}"}

    async def welcomed() -> bool:
        with contextlib.suppress(OSError):  # it has just started
            async with connect(
                url, ssl=trust, origin=Origin(page), additional_headers=credentials, proxy=None
            ) as client:
                return '"welcome"' in str(await client.recv())
        return False

    await eventually(welcomed, 20)
    plain = await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{stack.port}/demo")
    assert plain.status_code == 308


async def test_stopped_nodes_drain_and_exit_with_0(stack: Stack) -> None:
    async with Roomcast(f"ws://127.0.0.1:{stack.operators_port}/ws", token=token_of("last")):
        await asyncio.to_thread(stack.compose, "stop", "node")
    for container in stack.containers("node"):
        assert container["State"]["ExitCode"] == 0
    assert "draining 1 connections" in stack.logs("node")
