"""Child processes: started pinned to a core, heard by lines, stopped by their pid."""

from __future__ import annotations

import json
import os
import random
import selectors
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from loadtests.errors import SetupError

STOP_S = 10.0
"""How long a process may take to end after SIGTERM before it is killed."""


class Child:
    """A process with its errors in a file. Leaving the context stops it. ``core`` None: not pinned."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        folder: Path,
        core: int | None,
        environment: Mapping[str, str] | None = None,
        stop_s: float = STOP_S,
    ) -> None:
        self.name = name
        self._stop_s = stop_s
        self._log = folder / f"{name}.log"
        pinned = ["taskset", "--cpu-list", str(core)] if core is not None else []
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [*pinned, *map(str, command)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE if isinstance(self, Native) else log,
                    stderr=log,
                    env={**os.environ, **(environment or {})},
                )
        except FileNotFoundError as error:
            raise SetupError(f"{error.filename} is not installed, the {name} needs it") from None

    @property
    def pid(self) -> int:
        return self._process.pid

    def log_tail(self, lines: int = 12) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def check(self) -> None:
        """Raise :class:`SetupError` with the end of its log if the process is gone."""
        code = self._process.poll()
        if code is not None:
            raise SetupError(f"the {self.name} ended with {code}; its last lines:\n{self.log_tail()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.terminate()
        try:
            self._process.wait(self._stop_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Native(Child):
    """One of our C programs: a command in one line, the answer in one line of JSON."""

    def ask(self, command: str, *, timeout_s: float) -> dict[str, float]:
        """Raises :class:`SetupError` if it ends, or is silent for ``timeout_s``, instead of answering."""
        fields: dict[str, float] = json.loads(self._answer(command, timeout_s))
        return fields

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Of the load client, since its last ``reset``: ``latency_us`` and ``joining_us`` as distributions, and what
        arrived ``per_s`` over time. Raises as :meth:`ask` does."""
        fields: dict[str, list[tuple[float, float]]] = json.loads(self._answer("curves", 30))
        return fields

    def _answer(self, command: str, timeout_s: float) -> bytes:
        assert self._process.stdin is not None and self._process.stdout is not None
        deadline_s = time.monotonic() + timeout_s
        answer = b""
        try:
            os.write(self._process.stdin.fileno(), command.encode() + b"\n")
        except BrokenPipeError:
            self._process.wait()
            self.check()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not answer.endswith(b"\n"):
                if not selector.select(deadline_s - time.monotonic()):
                    raise SetupError(f"the {self.name} did not answer {command!r} in {timeout_s:.0f} s")
                got = os.read(self._process.stdout.fileno(), 65536)
                if not got:
                    self._process.wait()
                    self.check()
                answer += got
        return answer


def free_port() -> int:
    """A port nobody listens on, below those the kernel gives to outgoing connections (32768 on): thousands of clients
    cannot take it before the server does, and waiting for the server cannot connect to itself."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_for_port(port: int, child: Child, *, timeout_s: float) -> None:
    """Return once something accepts connections on the port, or raise :class:`SetupError`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        child.check()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline_s:
                raise SetupError(
                    f"the {child.name} does not listen after {timeout_s:.0f} s:\n{child.log_tail()}"
                ) from None
            time.sleep(0.02)


def wait_until_ready(port: int, child: Child, *, timeout_s: float) -> None:
    """Return once ``/readyz`` is 200, or 404 for a server that has no such page; else raise :class:`SetupError`."""
    wait_for_port(port, child, timeout_s=timeout_s)
    deadline_s = time.monotonic() + timeout_s
    while True:
        child.check()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                answer.read()
            return
        except urllib.error.HTTPError as error:
            reason = f"/readyz answers {error.code} {error.read(200).decode(errors='replace')}"
            if error.code == 404:
                return
        except OSError as error:
            reason = str(error)
        if time.monotonic() > deadline_s:
            raise SetupError(f"the {child.name} is not ready after {timeout_s:.0f} s: {reason}\n{child.log_tail()}")
        time.sleep(0.05)
