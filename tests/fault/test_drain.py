"""A node that is told to stop, as the world outside sees it: rows A7, A8 and A9 of the fault catalogue."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from loadtests.crowd import Crowd
from tests.support.busy import busy_s
from tests.support.cluster import PRODUCTION
from tests.support.figures import note
from tests.support.node import NodeServer
from tests.support.peer import Peer, peer
from tests.support.served import IN_TIME_S, RawClient, handshake, raw_client
from tests.support.swarm import swarm
from tests.support.waiting import eventually

pytestmark = pytest.mark.system

GET = b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"
BOUND_S = 5.0
"""What a node may take beyond ``drain_s``: 25 s in all by default."""


async def answer(client: RawClient) -> tuple[int, bytes, bytes]:
    """Status, head and body."""
    status, head = await client.head()
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    async with asyncio.timeout(IN_TIME_S):
        return status, head.lower(), await client.reader.readexactly(length)


async def test_from_the_signal_on_nobody_comes_and_everybody_is_sent_elsewhere_at_a_pace() -> None:
    with NodeServer(drain_s=2) as node:
        peers = [Peer(f"u{number}") for number in range(100)]
        for one in peers:
            await one.connect(node.ws_url)
        async with raw_client(node.port, GET) as asking, raw_client(node.port, GET) as upgrading:
            assert (await answer(asking))[0] == (await answer(upgrading))[0] == 200
            signalled_s = time.monotonic()
            node.terminate()
            closed_s: list[float] = []

            async def told(one: Peer) -> None:
                await one.until(lambda: one.close_code is not None)
                closed_s.append(time.monotonic())

            telling = asyncio.gather(*(told(one) for one in peers))
            await eventually(lambda: refuses(node.port), 1.0)
            note("A7 drain: no new connection after", time.monotonic() - signalled_s, "s")
            asking.send(GET)
            status, head, body = await answer(asking)
            assert (status, json.loads(body)["reason"]) == (503, "draining")
            assert b"connection: close" in head and await asking.rest() == b""
            upgrading.send(handshake("/ws?user=late"))
            status, head, _ = await answer(upgrading)
            assert status == 503 and b"retry-after:" in head
            assert time.monotonic() - signalled_s < 2.0 + busy_s(), "this is to be seen while it drains"
            await telling
            assert await ended(node) == 0
        assert time.monotonic() - signalled_s < 2 + BOUND_S + busy_s()
        for one in peers:
            assert (one.close_code, one.told("drain"), one.frames[-1]["op"]) == (1012, 1, "drain")
            assert 0 <= one.frames[-1]["retry_after_ms"] <= 200
        assert max(closed_s) - signalled_s >= 1.6
        assert max(closed_s) - min(closed_s) >= 0.7 - busy_s(), "one after the other"


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it was in the queue when the node stopped listening: the next one is refused
    return False


async def ended(node: NodeServer, timeout_s: float = 40.0) -> int:
    """The exit code, of a node that was told to end."""
    process = node.process
    assert process is not None
    await eventually(lambda: process.poll() is not None, timeout_s)
    node.process = None
    return process.returncode


async def crowd_leaves(members: int, row: str, settings: dict[str, object], window_s: float) -> None:
    """All of them are on one node, which drains; nginx sends them to another one."""
    drain_s = float(str(settings["drain_s"]))
    async with swarm(members, 1, 1, settings=settings) as here:
        await here.start_later()
        node = here.nodes[0]
        began_s, signalled_s = asyncio.get_running_loop().time(), time.monotonic()
        assert await node.stopped(60) == 0
        took_s = time.monotonic() - signalled_s
        note(f"{row}: exit 0 after", took_s, "s")
        assert took_s <= drain_s + BOUND_S + busy_s()
        await here.crowd.all_here(10)
        here.judge_peak(row, began_s, window_s)
        assert len(here.crowd.tries_s(began_s)) >= members + len(here.crowd.observers)
        node.launch()
        await node.wait_ready()


@pytest.mark.redis
@pytest.mark.nginx
@pytest.mark.timeout(120)
async def test_a_drain_under_load_loses_nothing_and_nobody_goes_offline() -> None:
    """A7, with a tenth of the connections at a tenth of the time."""
    await crowd_leaves(500, "A7 drain of 500", {"drain_s": 2}, window_s=1)


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.nginx
@pytest.mark.timeout(200)
async def test_a_drain_of_five_thousand() -> None:
    """A7 as it stands: 100 messages a second, at production's times."""
    await crowd_leaves(5000, "A7 drain of 5,000", dict(PRODUCTION), window_s=2)


class Dead:
    """A client that stops reading, and answers nothing any more."""

    def __init__(self, port: int, room: str) -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.connect(("127.0.0.1", port))
        join = json.dumps({"op": "join", "room": room, "id": 1}).encode()
        self.sock.sendall(handshake("/ws?user=dead") + bytes((0x81, 0x80 | len(join))) + bytes(4) + join)


async def drained_in(living: int, dead: int, drain_s: float) -> float:
    """Seconds that a node takes to leave, with living clients and dead ones that owe it reading."""
    with NodeServer(drain_s=drain_s, log_level="info") as node:
        crowd = Crowd(living, ("127.0.0.1", node.port), observers=0)
        await crowd.arrive(30)
        async with peer(node.ws_url, "speaker", "r") as speaker:
            gone = [Dead(node.port, "r") for _ in range(dead)]
            await eventually(lambda: metric(node, 'roomcast_connections{lane="fast"}') == living + dead + 1)
            for number in range(4):
                assert (await speaker.ask("message", room="r", data="x" * 50_000, key=str(number)))["ok"]
            started_s = time.monotonic()
            assert await node.stopped(60) == 0
            took_s = time.monotonic() - started_s
        assert ("cutting off" in node.log) is (dead > 0 and drain_s < 10), "after ten seconds nobody is left to be cut"
        assert "Cancel" not in node.log, "uvicorn had to wait for somebody"
        for each in gone:
            each.sock.close()
        await crowd.leave()
        assert {member.closes[0] for member in crowd.members} == {1012}
        return took_s


def metric(node: NodeServer, sample: str) -> float:
    [line] = [line for line in node.get("/metrics")[1].decode().splitlines() if line.startswith(sample)]
    return float(line.rsplit(" ", 1)[1])


async def test_dead_peers_hold_a_drain_up_for_their_last_words_at_most() -> None:
    """A8, with a drain too short for their patience to run out meanwhile."""
    took_s = await drained_in(50, 50, 0.5)
    note("A8 drain of 0.5 s with 50 dead peers", took_s, "s")
    assert took_s < 0.5 + BOUND_S + busy_s()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_dead_peers_do_not_change_the_time_a_drain_takes() -> None:
    """A8: they are told first, and cut off ten seconds later."""
    without_s, with_s = await asyncio.gather(drained_in(1000, 0, 20), drained_in(1000, 50, 20))
    note("A8 drain of 1,000 living clients", without_s, "s")
    note("A8 drain of 1,000 living clients and 50 dead peers", with_s, "s")
    assert with_s <= without_s + 1 + busy_s()


# A9, and what an application may do.


class Application(NodeServer):
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, app: str = "hub") -> None:
        self.told_path = folder / "told"
        monkeypatch.setenv("LEAVING_APP_TOLD", str(self.told_path))
        secret = "a secret of at least thirty-two characters"  # without dev mode: there a reloader stands between
        super().__init__(app=f"tests.support.leaving_app:{app}", secret=secret, drain_s=0.2)

    @property
    def told(self) -> list[str]:
        return self.told_path.read_text().splitlines() if self.told_path.exists() else []

    def __enter__(self) -> Application:
        super().__enter__()
        return self


@contextlib.asynccontextmanager
async def visiting(node: NodeServer, path: str) -> AsyncIterator[None]:
    """A client of a handler, which is running."""
    async with connect(f"ws://127.0.0.1:{node.port}{path}", proxy=None) as ws:
        if path in ("/thread", "/blocked"):
            await ws.send("go")
        else:
            assert await asyncio.wait_for(ws.recv(), IN_TIME_S) == "ready"
        yield


async def test_handlers_and_hooks_are_finished_or_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a ``roomcast serve --app`` process. A thread that nobody can end is left behind; it exits with 0."""
    with Application(tmp_path, monkeypatch) as node:
        async with visiting(node, "/polite"), visiting(node, "/stubborn"), visiting(node, "/thread"):
            await eventually(lambda: "thread: blocked" in node.told)
            async with peer(node.ws_url, "member", "r"):
                started_s = time.monotonic()
                assert await node.stopped() == 0
                note("drain of 0.2 s with an application's handlers", time.monotonic() - started_s, "s")
        assert sorted(node.told) == [
            "background: cancelled",
            "left: somebody",
            "polite: finished",
            "shutdown",
            "stubborn: cancelled",
            "thread: blocked",
        ]
        assert "cut off" in node.log and "Traceback" not in node.log


async def test_hooks_of_the_last_to_leave_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Application(tmp_path, monkeypatch) as node:
        async with peer(node.ws_url, "member", "r"):
            assert await node.stopped() == 0
        assert node.told == ["left: somebody", "shutdown", "background: cancelled"]


@pytest.mark.slow
@pytest.mark.parametrize(("app", "path"), [("hub", "/deaf"), ("slow_hub", "")])
async def test_an_application_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: str, path: str
) -> None:
    with Application(tmp_path, monkeypatch, app) as node:
        async with contextlib.AsyncExitStack() as stack:
            if path:
                await stack.enter_async_context(visiting(node, path))
            started_s = time.monotonic()
            assert await node.stopped() == 0
            took_s = time.monotonic() - started_s
        note(f"drain of 0.2 s, {app} {path} will not end", took_s, "s")
        assert took_s < 0.2 + 15 + busy_s()


@pytest.mark.parametrize("path", ["/stubborn", "/thread", "/blocked"])
async def test_a_second_signal_leaves_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """A9, whatever the application is doing: also while it blocks the event loop."""
    with Application(tmp_path, monkeypatch) as node:
        async with visiting(node, path):
            if path != "/stubborn":
                await eventually(lambda: bool(node.told))
            os.kill(node.pid, signal.SIGTERM)
            if path == "/blocked":
                await asyncio.sleep(0.5)  # nothing of it can be seen from outside
            else:
                await eventually(lambda: refuses(node.port))
            second_s = time.monotonic()
            os.kill(node.pid, signal.SIGTERM)
            code = await ended(node)
            took_s = time.monotonic() - second_s
        note(f"A9 second signal, with a handler on {path}", took_s, "s")
        assert took_s <= 2.0 + busy_s() and code in (0, 1)
