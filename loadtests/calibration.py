"""The constants of the model from JSON reports of load tests, and how far it is from other runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from loadtests.errors import SetupError
from loadtests.growth import SIZES
from loadtests.leastsquares import fit
from loadtests.model import Constants, Load, Rooms, node_cores

NEEDED = ("growth", "chat", "idle", "handshake", "presence-storm", "cluster", "cross-node", "masters")
NODES = {"1 node": 1, "2 nodes": 2, "4 nodes": 4}
"""The runs of ``cluster`` that the model is held against."""
HEARERS = {"1 node": (1, 1), "2 nodes": (2, 2), "4 nodes": (4, 4), "4, members on 1": (4, 1)}
"""All of its runs: nodes, and those that hear the room."""
KIB = 1024.0


class Report:
    """One JSON report."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self.scenario: str = found["scenario"]
        self.parameters: Mapping[str, Any] = found["parameters"]
        self._samples: Sequence[Mapping[str, Any]] = found["samples"]

    def figure(self, name: str, server: str = "node") -> float:
        """The median. SetupError if no sample has it: the report is of another version."""
        values = [float(sample[name]) for sample in self._samples if sample["server"] == server and name in sample]
        if not values:
            raise SetupError(f"the report of {self.scenario} has no {name} of {server}: run the scenario again")
        return median(values)

    def has(self, name: str) -> bool:
        return any(name in sample for sample in self._samples)


class Reports:
    """Those of a set of runs, on one machine. Of a scenario that is there twice the last counts; of fan-out all do."""

    def __init__(self, reports: Sequence[Report]) -> None:
        self.by_name = {report.scenario: report for report in reports}
        self.fanouts = [report for report in reports if report.scenario == "fanout"]
        missing = [name for name in NEEDED if name not in self.by_name]
        if missing:
            commands = "; ".join(f"python -m loadtests {name} --json {name}.json" for name in missing)
            raise SetupError(f"the model needs more reports: {commands}")

    def __getitem__(self, name: str) -> Report:
        return self.by_name[name]


def constants_of(reports: Reports) -> Constants:
    """Raises :class:`SetupError` for reports that lack a figure."""
    write_us, joined_us, heard_us = _deliveries(reports)
    chat, idle, cluster = (reports[name] for name in ("chat", "idle", "cluster"))
    heard_by_one = chat.figure("deliveries_per_s") / chat.figure("messages_per_s")
    # A message costs Redis a part in any case, another for each node that hears it, and nodes cost by themselves.
    rows = [(1.0, hearing, nodes) for nodes, hearing in HEARERS.values()]
    _, sent_us, beat_us = fit(rows, [cluster.figure("redis_us_per_message", name) for name in HEARERS])
    beats_us = beat_us * float(cluster.parameters["messages/s"])
    append_us, read_us = _appends(reports, sent_us, beats_us)
    _, sent_bytes, _ = fit(rows, [cluster.figure("redis_out_bytes_per_message", name) for name in HEARERS])
    connections = float(idle.parameters["connections"])
    storm = reports["presence-storm"]
    return Constants(
        write_us=write_us,
        joined_us=joined_us,
        heard_us=heard_us,
        said_us=max(0.0, chat.figure("cpu_us_per_message") - heard_by_one * write_us - heard_us),
        connect_us=reports["handshake"].figure("cpu_us_per_join"),
        idle_us=idle.figure("cpu_share") * 1e6 / connections,
        connection_bytes=idle.figure("kib_per_connection") * KIB,
        node_bytes=idle.figure("rss_mib") * KIB**2 - connections * idle.figure("kib_per_connection") * KIB,
        append_us=append_us,
        read_us=read_us,
        sent_us=sent_us,
        redis_beat_us=beats_us,
        redis_connect_us=storm.figure("redis_us_per_join"),
        append_bytes=chat.figure("redis_in_bytes_per_message"),
        sent_bytes=sent_bytes,
        log_bytes=chat.figure("redis_bytes_per_message"),
        user_bytes=storm.figure("redis_bytes_per_user"),
        delivery_bytes=reports["growth"].figure("bytes_per_delivery_100"),
    )


SOURCES: Mapping[str, tuple[str, str]] = {
    "write_us": ("µs", "growth, fanout"),
    "joined_us": ("µs", "growth, fanout"),
    "heard_us": ("µs", "growth, fanout"),
    "said_us": ("µs", "chat"),
    "connect_us": ("µs", "handshake"),
    "idle_us": ("µs", "idle"),
    "connection_bytes": ("bytes", "idle"),
    "node_bytes": ("bytes", "idle"),
    "append_us": ("µs", "chat, cross-node"),
    "read_us": ("µs", "chat, cross-node"),
    "sent_us": ("µs", "cluster, over nodes that hear"),
    "redis_connect_us": ("µs", "presence-storm"),
    "redis_beat_us": ("µs", "cluster, over nodes that do not"),
    "append_bytes": ("bytes", "chat"),
    "sent_bytes": ("bytes", "cluster, over nodes that hear"),
    "log_bytes": ("bytes", "chat"),
    "user_bytes": ("bytes", "presence-storm"),
    "delivery_bytes": ("bytes", "growth"),
}
"""Of each constant: its unit, and which scenarios it comes from."""


def _deliveries(reports: Reports) -> tuple[float, float, float]:
    """What the CPU per delivery of all runs with one room is made of. A message alone in its write costs a write and
    its part of what every message heard costs; one of several costs less."""
    growth = reports["growth"]
    measured = [
        (size, growth.figure(f"messages_per_read_{size}"), growth.figure(f"cpu_us_{size}"))
        for size in SIZES
        if growth.has(f"cpu_us_{size}")
    ]
    measured += [
        (
            int(report.parameters["subscribers"]),
            report.figure("messages_per_read"),
            report.figure("cpu_us_per_delivery"),
        )
        for report in reports.fanouts
    ]
    rows = [(1 / joined, 1 - 1 / joined, 1 / (joined * members)) for members, joined, _ in measured]
    write_us, joined_us, heard_us = fit(rows, [cpu_us for _, _, cpu_us in measured])
    return write_us, joined_us, heard_us


def _appends(reports: Reports, sent_us: float, beats_us: float) -> tuple[float, float]:
    """What a message costs Redis for itself, and what a read does. In ``chat`` a node sends several messages at once,
    which its members hear on the same node; in ``cross-node`` each by itself, and both nodes hear it."""
    rows, found = [], []
    for report, nodes, rate in (
        (reports["chat"], 1, reports["chat"].figure("messages_per_s")),
        (reports["cross-node"], 2, float(reports["cross-node"].parameters["messages/s"])),
    ):
        reads = report.figure("redis_reads_per_message")
        rows.append((1.0, reads))
        spent_us = reads * nodes * sent_us + nodes * beats_us / rate
        found.append(report.figure("redis_us_per_message") - spent_us)
    if min(found) <= 0:
        raise SetupError(
            "cluster says that Redis spends more on sending than it spent in chat or cross-node: run all "
            "three again on a machine that does nothing else"
        )
    append_us, read_us = fit(rows, found)
    return append_us, read_us


class Check(NamedTuple):
    """One figure of a run, foretold and measured."""

    run: str
    figure: str
    foretold: float
    measured: float

    @property
    def error(self) -> float:
        return self.foretold / self.measured - 1


def checks(reports: Reports, constants: Constants) -> list[Check]:
    """CPU of all nodes per delivery in the runs of ``cluster``, of which no constant of a node comes, and of Redis per
    message in those of ``masters``, of which none comes at all."""
    cluster, masters = reports["cluster"], reports["masters"]
    members, rate = int(cluster.parameters["subscribers"]), float(cluster.parameters["messages/s"])
    found = []
    for name, nodes in NODES.items():
        # The publisher says nothing to a node: it speaks to Redis.
        load = Load(members, [Rooms(1, members, rate)], 0.0)
        joined = cluster.figure("messages_per_read", name)
        cores = node_cores(constants, load, nodes, joined) - load.messages * constants.said_us * 1e-6
        measured = cluster.figure("cpu_us_per_delivery", name)
        found.append(Check(name, "node CPU µs per delivery", cores * 1e6 / load.deliveries, measured))
    rooms = int(masters.parameters["rooms"])
    for name in ("1 master", "3 masters"):
        # A publisher on the one node and a member on the other: both hear it.
        reads = masters.figure("reads_per_publish", name)
        foretold = constants.append_us + reads * (constants.read_us + 2 * constants.sent_us)
        measured = masters.figure("us_per_publish", name)
        found.append(Check(f"{name}, {rooms} rooms", "Redis CPU µs per message", foretold, measured))
    return found
