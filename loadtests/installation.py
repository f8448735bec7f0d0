"""What people run: Redis, some nodes, and the nginx of deploy/ before them. Not pinned: nothing is compared."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from loadtests.processes import Child, free_port, wait_for_port, wait_until_ready

START_S = 20.0
NGINX = Path(__file__).parent.parent / "deploy" / "nginx"
NGINX_FILES = ("nginx.conf", "roomcast.conf", "proxy.conf", "limits.conf")
SBIN = ":/usr/sbin"
"""Where Debian keeps nginx."""


class Installation:
    """Use as a context. Raises :class:`loadtests.errors.SetupError` for what does not start."""

    def __init__(self, nodes: int, settings: dict[str, object]) -> None:
        """``settings`` are those of the nodes, by their names in server/settings.py."""
        self.ports = [free_port() for _ in range(nodes)]
        self.port = free_port()
        """nginx."""
        self._settings = settings
        self._nodes: dict[int, ExitStack] = {}
        self._pids: dict[int, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="roomcast-loadtests-")))
            self._redis_port = free_port()
            redis = ["redis-server", "--port", str(self._redis_port), "--bind", "127.0.0.1", "--appendonly", "no"]
            redis += ["--save", "", "--maxmemory-policy", "noeviction", "--dir", str(self._folder)]
            self._start(stack, "redis-server", redis, self._redis_port)
            stack.callback(self._stop_nodes)
            for port in self.ports:
                self.start_node(port)
            self._start(stack, "nginx", self._nginx(), self.port, PATH=os.environ.get("PATH", "") + SBIN)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack, name: str, command: list[str], port: int, **environment: str) -> Child:
        child = stack.enter_context(Child(name, command, folder=self._folder, core=None, environment=environment))
        wait_for_port(port, child, timeout_s=START_S)
        return child

    def _nginx(self) -> list[str]:
        folder = self._folder / "nginx"
        folder.mkdir()
        for path in (self._folder, folder):
            path.chmod(0o755)  # nginx' workers are not root
        for name in NGINX_FILES:
            shutil.copy(NGINX / name, folder / name)
        (folder / "listen.conf").write_text(f"listen 127.0.0.1:{self.port};\n")
        upstream = (NGINX / "upstream-static.conf").read_text()
        for number, port in enumerate(self.ports, 1):
            upstream = upstream.replace(f"server 127.0.0.1:{8000 + number} ", f"server 127.0.0.1:{port} ")
        line = next(line for line in upstream.splitlines() if f":{self.ports[0]} " in line)
        more = [line.replace(str(self.ports[0]), str(port)) for port in self.ports[2:]]
        (folder / "upstream.conf").write_text(upstream.replace(line, "\n".join([line, *more])))
        return ["nginx", "-e", "stderr", "-p", f"{folder}/", "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]

    # Nodes, each known by its port.

    @property
    def pids(self) -> list[int]:
        """Of the nodes that run."""
        return list(self._pids.values())

    def start_node(self, port: int) -> None:
        """Return when it is ready."""
        environment = {f"ROOMCAST_{name.upper()}": str(value) for name, value in self._settings.items()}
        environment |= {
            "ROOMCAST_HOST": "127.0.0.1",
            "ROOMCAST_PORT": str(port),
            "ROOMCAST_BROKER": f"redis://127.0.0.1:{self._redis_port}/0",
            "ROOMCAST_DEV": "1",
            "ROOMCAST_LOG_LEVEL": "warning",
        }
        stack = ExitStack()
        self._nodes[port] = stack
        child = Child(
            f"node-{port}",
            [sys.executable, "-m", "server", "serve"],
            folder=self._folder,
            core=None,
            environment=environment,
            stop_s=120.0,
        )
        stack.enter_context(child)
        self._pids[port] = child.pid
        wait_until_ready(port, child, timeout_s=START_S)

    def stop_node(self, port: int) -> float:
        """SIGTERM; the seconds it took to end."""
        started_s = time.monotonic()
        self._nodes.pop(port).close()
        self._pids.pop(port)
        return time.monotonic() - started_s

    def _stop_nodes(self) -> None:
        for stack in self._nodes.values():
            stack.close()
