"""A result for people (a table, a page) and for programs (JSON), with when and where it was measured."""

from __future__ import annotations

import json
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loadtests.page import page
from loadtests.result import Result


def machine() -> dict[str, object]:
    """What a figure means nothing without."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": len(cpus),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def report_of(result: Result) -> dict[str, object]:
    """For programs: all samples, medians and ratios, when and on what machine."""
    return {"date": _now(), "machine": machine(), **result.as_json()}


def write_json(result: Result, path: Path) -> None:
    """As :func:`report_of`, and the curves of each sample."""
    found = report_of(result) | {"curves": [dict(sample.curves) for sample in result.samples]}
    text = json.dumps(found, indent=2, ensure_ascii=False)
    path.write_text(_POINT.sub(r"[\1, \2]", text) + "\n")


_POINT = re.compile(r"\[\s+([-+.\de]+),\s+([-+.\de]+)\s+\]")
"""Of a curve: there are hundreds, a line for each is enough."""


def write_page(result: Result, path: Path) -> None:
    """One file of HTML that needs no other."""
    path.write_text(page(result, {"measured": _now(), **machine()}), encoding="utf-8")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def print_result(result: Result, console: Console) -> None:
    """The medians side by side, the goals, then whatever takes trust away from them."""
    parameters = ", ".join(f"{name} {value}" for name, value in result.parameters.items())
    servers = result.servers
    console.print(f"[bold]{result.scenario}[/]: {parameters}")
    table = Table()
    table.add_column("median")
    for server in servers:
        table.add_column(server, justify="right")
    compared = set(result.pair) <= set(servers)
    if compared:
        table.add_column(" ÷ ".join(result.pair), justify="right")
    for column in result.columns:
        ratio = None if column.percent else result.ratio(column.figure)
        cells = [column.text(result.median(server, column.figure)) for server in servers]
        if compared:
            cells.append("–" if ratio is None else f"{ratio:.2f}")
        table.add_row(column.title, *cells)
    console.print(table)
    for goal in result.goals:
        measured = result.measured(goal)
        if measured is not None:
            verdict = "[green]met[/]" if goal.met(measured) else "[red]missed[/]"
            console.print(f"goal: {result.title(goal.figure)} {goal}: {measured:,.2f} {verdict}")
    for note in result.notes:
        console.print(f"[yellow]note:[/] {note}")
    for fault in result.faults():
        console.print(f"[red]fault:[/] {fault}")
