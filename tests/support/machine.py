"""One big machine for tests: a supervisor and its workers, each with its metrics on a port of its own."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

from tests.support.node import NodeServer, lasting_port
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually_sync

WORKERS = 2


def ports_in_a_row(count: int) -> int:
    """The first of so many free ones."""
    while True:
        first = lasting_port()
        probes = [socket.socket() for _ in range(count)]
        try:
            for number, probe in enumerate(probes):
                probe.bind(("127.0.0.1", first + number))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        return first


class Machine(NodeServer):
    """One supervisor and its workers."""

    def __init__(self, server: RedisServer, prefix: str, **settings: Any) -> None:
        self.metrics_port = ports_in_a_row(WORKERS)
        given: dict[str, Any] = {
            "workers": WORKERS,
            "metrics_port": self.metrics_port,
            "drain_s": 1,
            "node": "big",
            **settings,
        }
        super().__init__(broker=server.url, prefix=prefix, **(given | settings))

    def start(self) -> None:
        """Three processes one after the other."""
        self.launch()
        eventually_sync(self.ready, 60)

    def ready(self) -> bool:
        """All workers are."""
        return super().ready() and all(self.of_worker(number, "/readyz")[0] == 200 for number in range(WORKERS))

    def of_worker(self, number: int, path: str) -> tuple[int, str]:
        other = NodeServer(port=self.metrics_port + number)
        try:
            status, body = other.get(path)
        except OSError:
            return 0, ""
        finally:
            other.__exit__()
        return status, body.decode()

    def connections(self, number: int) -> int:
        found = re.findall(r"^roomcast_connections{.*} (\d+)", self.of_worker(number, "/metrics")[1], re.MULTILINE)
        return sum(map(int, found))

    def __enter__(self) -> Machine:
        super().__enter__()
        return self

    @property
    def worker_pids(self) -> list[int]:
        """By when they were started."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return sorted(map(int, children))
