"""Scenario ``workers``: N workers on one port (``roomcast serve --workers N``) against N nodes with a port each, on all
cores of this machine, which the load shares: the difference of the two says something, the figures themselves little.

``python -m loadtests.workers --count 2``. Exit codes as those of ``python -m loadtests``.
"""

from __future__ import annotations

import re
import socket
import statistics
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from loadtests.accounting import Cpu, process_cpu, rss_bytes
from loadtests.errors import SetupError
from loadtests.processes import Child, Native, free_port, wait_until_ready
from loadtests.stage import EPOCH, IN_FLIGHT, META, NODE_COMMAND, START_S, Server, Stage, allow_open_files

Kind = Literal["workers", "nodes"]
KINDS: tuple[Kind, ...] = ("workers", "nodes")
FIGURES = {
    "opened_per_s": "joined connections/s",
    "spread": "connections, (most - fewest) / mean",
    "deliveries_per_s": "deliveries/s",
    "delivered_share": "of those offered",
    "cpu_us_per_delivery": "CPU µs per delivery, all nodes",
    "p99_us": "latency p99 µs",
    "rss_mib": "RSS MiB, all processes",
    "lost": "lost",
    "duplicated": "duplicated",
}


class Fleet(NamedTuple):
    """Several nodes that are ready."""

    children: Sequence[Child]
    ports: Sequence[int]
    """One for each client."""
    metrics_ports: Sequence[int]

    @property
    def pids(self) -> list[int]:
        """Of all processes, a supervisor's workers too."""
        own = [child.pid for child in self.children]
        found = (Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in own)
        return own + [int(pid) for line in found for pid in line]

    @property
    def cpu(self) -> Cpu:
        each = [process_cpu(pid) for pid in self.pids]
        return Cpu(sum(cpu.user_s for cpu in each), sum(cpu.system_s for cpu in each))

    def connections(self) -> list[int]:
        """On each node."""
        return self._sums(rb"(?m)^roomcast_connections{.*} (\d+)")

    def heard(self) -> list[int]:
        """How many messages each node was sent by Redis."""
        return self._sums(rb"(?m)^roomcast_broker_items_total (\d+)")

    def _sums(self, line: bytes) -> list[int]:
        texts = (urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read() for port in self.metrics_ports)
        return [sum(map(int, re.findall(line, text))) for text in texts]


class Machine(Stage):
    """A stage on which nothing is pinned."""

    def __init__(self) -> None:
        super().__init__()
        self.server_core = self.load_core = None

    @contextmanager
    def fleet(self, kind: Kind, count: int) -> Iterator[Fleet]:
        self._redis.flushall()
        self._redis.hset(META, mapping={"e": EPOCH, "o": 0, "g": "0", "b": 0})
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
        return Child(name, NODE_COMMAND.split(), folder=self._folder, core=None, environment=environment)


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
    stage: Machine,
    kind: Kind,
    count: int,
    subscribers: int,
    rate: int,
    seconds: float,
    *,
    with_members: int | None = None,
) -> dict[str, float]:
    """``with_members``: only so many of the nodes are connected to; all, if not said."""
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
        before = fleet.cpu
        total = round(rate * seconds)
        published = publisher.ask(f"publish {total} {rate} 0", timeout_s=30 + seconds)
        everybody(f"reach {published['last']}", 30 + 10 * seconds)
        cpu_s = fleet.cpu.since(before).total_s
        heard = fleet.heard()
        seen = everybody(f"report {published['last']}", 30)
        deliveries = sum(each["deliveries"] for each in seen)
        return {
            "opened_per_s": subscribers / max(each["seconds"] for each in opened),
            "spread": (max(held) - min(held)) / statistics.mean(held),
            "deliveries_per_s": deliveries / max(each["span_s"] for each in seen),
            "delivered_share": deliveries / (total * (subscribers // clients_count * clients_count)),
            "cpu_us_per_delivery": cpu_s * 1e6 / deliveries,
            "p99_us": max(each["p99_us"] for each in seen),
            "rss_mib": sum(rss_bytes(pid) for pid in fleet.pids) / 2**20,
            "heard_here": statistics.mean(heard[:clients_count]) if kind == "nodes" else 0.0,
            "heard_elsewhere": sum(heard[clients_count:]),
            "lost": sum(each["lost"] for each in seen),
            "duplicated": sum(each["duplicated"] for each in seen),
        }


def main(
    count: Annotated[int, typer.Option(min=1, help="Workers, and nodes.")] = 2,
    subscribers: Annotated[int, typer.Option(min=1, help="Connections in the one room.")] = 1000,
    rate: Annotated[int, typer.Option(min=1, help="Messages per second to the room.")] = 100,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each is measured.")] = 10,
    samples: Annotated[int, typer.Option(min=1, help="How often; the table shows medians.")] = 3,
) -> None:
    """N workers on one port against N nodes with a port each."""
    allow_open_files(subscribers)
    console = Console()
    found: dict[Kind, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    try:
        with Machine() as stage, console.status("") as status:
            for number in range(samples):
                for kind in KINDS:
                    status.update(f"{kind} {number + 1}/{samples}")
                    found[kind].append(measure(stage, kind, count, subscribers, rate, seconds))
    except SetupError as error:
        Console(stderr=True).print(f"not measured: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    table = Table("", *(f"{count} {kind}" for kind in KINDS), "ratio", title=f"{subscribers} × {rate}/s")
    for name, text in FIGURES.items():
        values = [statistics.median(sample[name] for sample in found[kind]) for kind in KINDS]
        ratio = f"{values[0] / values[1]:.2f}" if values[1] else ""
        table.add_row(text, *(f"{value:,.2f}" for value in values), ratio)
    console.print(table)
    if any(sample["lost"] or sample["duplicated"] for kind in KINDS for sample in found[kind]):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
