"""A real node for tests: ``python -m server serve`` in a process of its own, on a loopback port it keeps for life."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from tests.support.waiting import eventually, eventually_sync

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
UNHURRIED = {
    "requests_per_s": 1e6,
    "requests_burst": 10**6,
    "inbound_bytes_per_s": 2**30,
    "inbound_bytes_burst": 2**30,
    "connects_per_min": 1e9,
    "reads_per_s": 1e9,
    "reads_burst": 10**9,
}
"""Tests send as fast as they can; the limits on that are tested where they are the subject."""


def lasting_port() -> int:
    """A free loopback port outside the range the kernel hands to outgoing connections (from 32768 on): while a node is
    down, neither a client's own socket nor a client connecting to itself can take it."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class NodeServer:
    """One node. A context manager: entering starts it and waits for ``/readyz``, leaving kills it by its pid.

    ``settings`` are the fields of ``server.settings.Settings`` (``ping_s=1``, ``broker=redis.url``); without ``secret``
    the node runs in dev mode, where ``?user=alice`` is alice. No ROOMCAST_ variable of this process reaches it.
    Blocking calls are for fixtures; inside an event loop use ``launch`` and ``wait_ready``.
    """

    arguments: ClassVar[tuple[str, ...]] = ("-m", "server", "serve")
    """Of the Python that is the node."""

    def __init__(self, *, port: int | None = None, **settings: object) -> None:
        self.port = port or lasting_port()
        self.directory = Path(tempfile.mkdtemp(prefix="rc-node-", dir="/tmp"))
        self.settings: dict[str, object] = {
            "dev": "secret" not in settings,
            "log_format": "json",
            **UNHURRIED,
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def pid(self) -> int:
        """AssertionError when the node does not run."""
        assert self.process is not None, "the node does not run: call start() first"
        return self.process.pid

    @property
    def log(self) -> str:
        """All the node wrote, over all its lives."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> NodeServer:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def launch(self) -> None:
        """Start the process and return at once."""
        assert self.process is None, "the node runs already: kill() or stop() it first"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ROOMCAST_")}
        for name, value in {"host": "127.0.0.1", "port": self.port, **self.settings}.items():
            environ[f"ROOMCAST_{name.upper()}"] = str(value)
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        """Start and wait until the node is ready. Blocks."""
        self.launch()
        eventually_sync(self.ready, START_S)

    async def wait_ready(self, timeout_s: float = START_S) -> None:
        """Return once ``/readyz`` says 200. AssertionError with the end of the log if the node ended."""

        async def ready() -> bool:
            return await asyncio.to_thread(self.ready)

        _: bool = await eventually(ready, timeout_s)

    def ready(self) -> bool:
        """Whether ``/readyz`` says 200. AssertionError with the end of the log if the node ended."""
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the node ended with {self.process.returncode}: {self.log[-3000:]}")
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def get(self, path: str, timeout_s: float = 5.0) -> tuple[int, bytes]:
        """One HTTP GET: status and body. OSError when nobody answers in time. Blocks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"no HTTP answer from port {self.port}: {error!r}") from error
        finally:
            connection.close()

    def metric(self, name: str, timeout_s: float = 5.0) -> float:
        """The value of one metric, its labels as they stand in the page. KeyError if the node has none of that name."""
        for line in self.get("/metrics", timeout_s)[1].decode().splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        raise KeyError(name)

    def log_records(self) -> list[dict[str, Any]]:
        """The log's JSON lines; lines that are none (a traceback on the way down) as ``{"text": line}``."""
        return [_record(line) for line in self.log.splitlines() if line]

    def crashes(self) -> list[dict[str, Any]]:
        """The records of what should never happen: errors, tracebacks, exceptions that nobody awaited."""
        return [record for record in self.log_records() if _is_crash(record)]

    def pause(self) -> None:
        """Freeze the process (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """``kill -9``. Idempotent; works on a frozen node too."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def terminate(self) -> None:
        """Send SIGTERM and return at once: the node drains."""
        os.kill(self.pid, signal.SIGTERM)

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, wait for the end, return the exit code; AssertionError (and kill -9) if it takes longer. Blocks."""
        assert self.process is not None, "the node does not run: nothing to stop"
        self.terminate()
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the node did not end within {timeout_s} s of SIGTERM: {self.log[-3000:]}") from None
        self.process = None
        return code

    async def stopped(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, and the exit code once the node has ended, without blocking the event loop."""
        process = self.process
        assert process is not None, "the node does not run: nothing to stop"
        self.terminate()
        await eventually(lambda: process.poll() is not None, timeout_s)
        self.process = None
        return process.returncode

    async def restart(self) -> None:
        """``kill -9``, start again on the same port, return once it is ready."""
        self.kill()
        self.launch()
        await self.wait_ready()


def _is_crash(record: dict[str, Any]) -> bool:
    text = str(record)
    return record.get("level") in ("error", "critical") or "Traceback" in text or "never retrieved" in text


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    return record if isinstance(record, dict) else {"text": line}
