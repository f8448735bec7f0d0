"""Counts what the hot paths of a node cost, and compares with what is written in budget.json.

``python -m loadtests guard --record`` writes it anew: run it when a path has become cheaper, or dearer for a reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path as File
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.budget import Line, compare
from loadtests.counting import Counter, CpuTime, Kind, best_counter
from loadtests.lockstep import PATHS, Path
from loadtests.stage import NODE_COMMAND, Stage

BUDGET = File(__file__).parent / "budget.json"
TITLES = {"instructions": "instructions", "cpu": "CPU ns"}
MORE_OF_TIME = 20
"""Times as many steps where time is measured, which has a coarse grain."""
START_S = 120.0
"""Valgrind makes a start of one second fifteen long, and other things may run."""
ALONE = {
    # Nothing but what is asked of it: hardly a heartbeat, and no limits.
    **{"heartbeat_s": "60", "lease_s": "240", "ping_s": "300"},
    **{"requests_per_s": "1000000", "requests_burst": "1000000", "connects_per_min": "1000000"},
    **{"inbound_bytes_per_s": str(2**30), "inbound_bytes_burst": str(2**30)},
}


def run(
    console: Console,
    *,
    node: str = NODE_COMMAND,
    record: bool = False,
    valgrind: bool = True,
    budget: File = BUDGET,
    paths: Sequence[Path] = PATHS,
) -> bool:
    """Whether all is within the budget; only instructions can be over it. Raises :class:`loadtests.errors.SetupError`
    when it could not be measured."""
    with TemporaryDirectory(prefix="roomcast-guard-") as folder:
        counter = best_counter(File(folder)) if valgrind else CpuTime()
        costs = measure(counter, node, paths)
        turn = counter.loop()
    known: dict[Kind, dict[str, float]] = json.loads(budget.read_text()) if budget.exists() else {}
    turns = {name: cost / turn for name, cost in costs.items()}
    lines = compare(turns, known.get(counter.kind, {}))
    console.print(_table(lines, costs, counter.kind))
    if record:
        known[counter.kind] = {name: round(value, 1) for name, value in turns.items()}
        budget.write_text(json.dumps(known, indent=2) + "\n")
        console.print(f"recorded in {budget.name}")
        return True
    return judge(lines, counter.kind, console)


def judge(lines: list[Line], kind: Kind, console: Console) -> bool:
    """Say what is to be said of them. Whether all is well."""
    if kind == "cpu":
        console.print(
            "Without valgrind (apt-get install valgrind) time was measured: it says little, and decides nothing."
        )
        return True
    for line in lines:
        if line.over:
            console.print(f"[red]{line.name} costs more than its budget[/]: find out why, or record it with --record.")
        elif line.under:
            console.print(
                f"{line.name} has become cheaper: record it with --record, or it may be lost again unnoticed."
            )
    return not any(line.over for line in lines)


def measure(counter: Counter, node: str, paths: Sequence[Path]) -> dict[str, float]:
    """What each path costs a node, each time it is taken."""
    costs = {}
    with (
        Stage(node=counter.command(node), start_s=START_S) as stage,
        stage.another_server("node", **ALONE) as server,
    ):
        pid = server.child.pid
        for path in paths:
            n = path.n * MORE_OF_TIME if counter.kind == "cpu" else path.n
            clients = path.arrive(server.port)
            found = []
            for _ in range(3):  # the first is for warming up; of the others the one that was disturbed less
                counter.begin(pid)
                path.steps(clients, n)
                found.append(counter.end(pid) / n)
            costs[path.name] = min(found[1:])
            for client in clients:
                client.leave()
    return costs


def _table(lines: list[Line], costs: Mapping[str, float], kind: Kind) -> Table:
    table = Table("path", "", title="What the hot paths of a node cost, in turns of a loop of plain Python")
    for title in (TITLES[kind], "turns", "budget", "difference"):
        table.add_column(title, justify="right")
    units = {path.name: path.unit for path in PATHS}
    for line in lines:
        table.add_row(line.name, units[line.name], f"{costs[line.name]:,.0f}", *_cells(line))
    return table


def _cells(line: Line) -> tuple[str, str, str]:
    difference: Any = line.difference
    if difference is None:
        return f"{line.measured:.1f}", "–", "–"
    return f"{line.measured:.1f}", f"{line.budget:.1f}", f"{difference:+.1%}"
