"""``python -m loadtests model``: constants from reports, how wrong they are, and what a load needs, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer import Option

from loadtests.calibration import SOURCES, Report, Reports, checks, constants_of
from loadtests.command import not_measured
from loadtests.errors import SetupError
from loadtests.model import Limits, Load, Rooms, Sizing, heard, size

SESSION_S = 1800.0
"""How long a connection lives if nothing else is said."""


def rooms_of(words: str) -> Rooms:
    """``200000x5@0.2``: rooms x members of each @ messages per second in each. SetupError for anything else."""
    try:
        count, _, rest = words.partition("x")
        members, _, rate = rest.partition("@")
        rooms = Rooms(int(count), int(members), float(rate))
    except ValueError:
        rooms = Rooms(0, 0, 0.0)
    if rooms.count < 1 or rooms.members < 1 or not 0 <= rooms.rate < 1e9:
        raise SetupError(f"--rooms {words}: give rooms x members @ messages per second in each, as in 200000x5@0.2")
    return rooms


def read(paths: Sequence[Path]) -> Reports:
    """SetupError for what is no report."""
    reports = []
    for path in paths:
        try:
            reports.append(Report(json.loads(path.read_text())))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SetupError(f"{path} is no report of a scenario (--json): {error!r}") from None
    return Reports(reports)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def told(reports: Reports, loads: Sequence[Load], limits: Limits) -> str:
    """All of it as Markdown."""
    constants = constants_of(reports)
    values = asdict(constants)
    parts = [
        table(
            ("constant", "value", "unit", "from"),
            [(f"`{name}`", f"{values[name]:,.4g}", unit, source) for name, (unit, source) in SOURCES.items()],
        ),
        table(
            ("run", "figure", "foretold", "measured", "error"),
            [
                (check.run, check.figure, f"{check.foretold:.2f}", f"{check.measured:.2f}", f"{check.error:+.0%}")
                for check in checks(reports, constants)
            ],
        ),
    ]
    for load in loads:
        parts.append(_reading(load, size(constants, load, limits)))
    return "\n\n".join(parts)


def _reading(load: Load, needed: Sizing) -> str:
    rooms = " and ".join(
        f"{each.count:,} room{'s' * (each.count > 1)} of {each.members:,} with {each.rate:g}/s" for each in load.rooms
    )
    rows = [
        ("messages/s, deliveries/s", f"{load.messages:,.0f}, {load.deliveries:,.0f}"),
        ("nodes of one core", f"{needed.nodes:,} at {needed.node_share:.0%}"),
        ("connections and memory of a node", f"{load.connections / needed.nodes:,.0f}, {_bytes(needed.node_bytes)}"),
        ("a node to its clients", _bits(needed.node_bits_per_s)),
        ("messages/s that a node hears", f"{heard(load, needed.nodes) / needed.nodes:,.0f}"),
        ("Redis masters of one core", f"{needed.masters:,} at {needed.master_share:.0%}"),
        ("memory of all masters", _bytes(needed.redis_bytes)),
        ("all masters to the nodes", _bits(needed.redis_bits_per_s)),
        ("all back after all were cut", f"{needed.back_s:.1f} s"),
        *((f"room for growth: {wall}", f"{times:,.1f} ×") for wall, times in needed.walls.items()),
    ]
    head = f"{load.connections:,} connections, messages in {rooms}.\nBreaks first: {needed.breaks_first}."
    return f"{head}\n\n" + table(("what", "how much"), rows)


def _bytes(value: float) -> str:
    return f"{value / 2**30:,.1f} GiB" if value >= 2**30 else f"{value / 2**20:,.0f} MiB"


def _bits(value: float) -> str:
    unit, name = next((each for each in ((1e9, "Gbit/s"), (1e6, "Mbit/s")) if value >= each[0]), (1e3, "kbit/s"))
    return f"{value / unit:,.1f} {name}"


def model(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT.json…", help="Written with --json, on one machine.")],
    rooms: Annotated[
        list[str] | None,
        Option(metavar="COUNTxMEMBERS@RATE", help="Rooms, members of each, messages per second in each; repeatable."),
    ] = None,
    connections: Annotated[int, Option(min=1, help="On all nodes together.")] = 1_000_000,
    session_s: Annotated[
        float, Option(min=1, help="How long a connection lives: how many come each second.")
    ] = SESSION_S,
    fill: Annotated[float, Option(min=0.01, max=1, help="How much of a core may be used.")] = 0.6,
    connections_per_node: Annotated[int, Option(min=1, help="At most, on a node.")] = 20_000,
) -> None:
    """What an installation needs, from what single runs cost on this machine; Markdown on stdout.

    Needs reports of growth, chat, idle, handshake, presence-storm, cluster, cross-node and masters; takes any of
    fanout. Tells the constants, how far they are from the runs on 1, 2 and 4 nodes and on 1 and 3 masters, and for a
    load: nodes, Redis masters, memory, bandwidth, and what breaks first.
    """
    try:
        groups = [rooms_of(words) for words in rooms or ()]
        loads = [Load(connections, groups, connections / session_s)] if groups else []
        text = told(read(reports), loads, Limits(fill, connections_per_node))
    except (SetupError, ValueError) as error:
        raise not_measured(SetupError(str(error))) from None
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
