"""Several nodes at once, and one room on them."""

from __future__ import annotations

import re
import socket
import statistics
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from loadtests.accounting import rss_bytes
from loadtests.curves import merged
from loadtests.processes import Child, Native, free_port, wait_until_ready
from loadtests.result import Sample
from loadtests.sampling import Window
from loadtests.stage import IN_FLIGHT, NODE_COMMAND, START_S, Server, Stage

Kind = Literal["workers", "nodes"]


class Fleet(NamedTuple):
    """Several nodes that are ready."""

    children: Sequence[Child]
    ports: Sequence[int]
    """One for each client."""
    metrics_ports: Sequence[int]

    def pids(self) -> list[int]:
        """Of all processes, a supervisor's workers too."""
        own = [child.pid for child in self.children]
        found = (Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in own)
        return own + [int(pid) for line in found for pid in line]

    def connections(self) -> list[int]:
        """On each node."""
        return self._sums(rb"(?m)^roomcast_connections{.*} (\d+)")

    def heard(self) -> list[int]:
        """How many messages each node was sent by Redis."""
        return self._sums(rb"(?m)^roomcast_broker_items_total (\d+)")

    def _sums(self, line: bytes) -> list[int]:
        texts = (urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read() for port in self.metrics_ports)
        return [sum(map(int, re.findall(line, text))) for text in texts]


class Shipyard(Stage):
    """A stage with fleets. ``pinned``: all nodes share the first core, as one does elsewhere; else none is."""

    def __init__(self, *, pinned: bool) -> None:
        super().__init__()
        if not pinned:
            self.server_core = self.load_core = None

    @contextmanager
    def fleet(self, kind: Kind, count: int) -> Iterator[Fleet]:
        self.empty_redis()
        metrics = free_ports(count)
        with ExitStack() as stack:
            if kind == "workers":
                settings = {"ROOMCAST_WORKERS": str(count), "ROOMCAST_METRICS_PORT": str(metrics[0])}
                ports = [free_port()] * count
                children = [stack.enter_context(self._node("workers", ports[0], settings))]
            else:
                ports = [free_port() for _ in range(count)]
                children = [
                    stack.enter_context(self._node(f"node{port}", port, {"ROOMCAST_METRICS_PORT": str(own)}))
                    for port, own in zip(ports, metrics, strict=True)
                ]
            for port in {*ports, *metrics}:
                wait_until_ready(port, children[0], timeout_s=START_S)
            yield Fleet(children, ports, metrics)
            for child in children:
                child.check()

    def _node(self, name: str, port: int, settings: dict[str, str]) -> Child:
        environment = {**self._settings(port), "ROOMCAST_DRAIN_S": "0", **settings}
        return Child(name, NODE_COMMAND.split(), folder=self.folder, core=self.server_core, environment=environment)


def free_ports(count: int) -> list[int]:
    """So many in a row."""
    while True:
        ports = range(first := free_port(), first + count)
        try:
            for port in ports[1:]:
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return list(ports)


def measure(
    name: str,
    stage: Shipyard,
    kind: Kind,
    count: int,
    subscribers: int,
    rate: int,
    seconds: float,
    *,
    with_members: int | None = None,
) -> Sample:
    """One room, its members evenly on the nodes. ``with_members``: only so many of the nodes have any; all, if not
    said."""
    clients_count = with_members or count
    with stage.fleet(kind, count) as fleet, ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        clients: list[Native] = [
            stack.enter_context(stage.client(Server("node", fleet.children[0], port)))
            for port in fleet.ports[:clients_count]
        ]
        publisher = stack.enter_context(stage.publisher("publish"))

        def everybody(command: str, timeout_s: float) -> list[dict[str, float]]:
            return list(pool.map(lambda client: client.ask(command, timeout_s=timeout_s), clients))

        opened = everybody(f"open {subscribers // clients_count} {IN_FLIGHT // clients_count}", 60 + subscribers / 50)
        held = fleet.connections()
        warm = publisher.ask(f"publish {rate} {rate} 0", timeout_s=30)
        everybody(f"reach {warm['last']}", 30)
        everybody("reset", 10)
        window = Window(fleet.pids, stage)
        total = round(rate * seconds)
        published = publisher.ask(f"publish {total} {rate} 0", timeout_s=30 + seconds)
        everybody(f"reach {published['last']}", 30 + 10 * seconds)
        used = window.close()
        heard = fleet.heard()
        seen = everybody(f"report {published['last']}", 30)
        curves = [client.curves() for client in clients]
        deliveries = max(1.0, sum(each["deliveries"] for each in seen))
        cpu_us = used["cpu_s"] * 1e6 / deliveries
        figures = {
            **used,
            **{
                name: sum(each[name] for each in seen)
                for name in ("lost", "duplicated", "reordered", "early", "closed")
            },
            "opened_per_s": subscribers / max(each["seconds"] for each in opened),
            "spread": (max(held) - min(held)) / statistics.mean(held),
            "deliveries_per_s": deliveries / max(each["span_s"] for each in seen),
            "delivered_share": deliveries / (total * (subscribers // clients_count * clients_count)),
            "cpu_us_per_delivery": cpu_us,
            "user_us": cpu_us * (1 - used["kernel_share"]),
            "kernel_us": cpu_us * used["kernel_share"],
            "redis_us_per_message": used["redis_cpu_s"] * 1e6 / total,
            "redis_out_bytes_per_message": used["redis_out_bytes"] / total,
            "messages_per_read": deliveries / max(1.0, sum(each["reads"] for each in seen)),
            "p99_us": max(each["p99_us"] for each in seen),
            "rss_mib": sum(rss_bytes(pid) for pid in fleet.pids()) / 2**20,
            "heard_here": statistics.mean(heard[:clients_count]) if kind == "nodes" else 0.0,
            "heard_elsewhere": sum(heard[clients_count:]),
        }
        seen_curves = {
            "latency_us": merged([each["latency_us"] for each in curves]),
            "per_s": summed([each["per_s"] for each in curves]),
        }
        return Sample(name, figures, seen_curves | window.curves)


def summed(timelines: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """What happened on all of them, as far as the shortest goes."""
    return [(points[0][0], sum(value for _, value in points)) for points in zip(*timelines, strict=False)]
