"""What ``peers`` found as a table, for a terminal and for docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rich.table import Table

from loadtests.comparison import COLUMNS, Comparison
from loadtests.peer import Peer
from loadtests.report import machine, report_of

OURS = {"node": "**Roomcast node**", "baseline": "bare C loop"}
HEADS = (
    "server",
    "version",
    "peak deliveries/s",
    "CPU of its core",
    "CPU µs per delivery (beyond the kernel)",
    "p99 ms",
    "bytes per delivery",
)


def table_of(comparison: Comparison) -> Table:
    table = Table()
    for head in HEADS:
        table.add_column(head, justify="left" if head in HEADS[:2] else "right")
    for name, row in _rows(comparison):
        table.add_row(name.strip("*"), *(row if isinstance(row, tuple) else ("", f"not measured: {row}")))
    return table


def markdown(comparison: Comparison, command: str) -> str:
    """The page's part between its heading and its remarks: when, on what, how, both tables."""
    where = machine()
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {where['cpu']}, {where['cores']} cores, Linux {where['kernel']}, "
        f"Python {where['python']}: `{command}`. Medians of {comparison.result.parameters['samples']} samples.",
        "",
        f"| {' | '.join(HEADS)} |",
        f"|---|---|{'---:|' * (len(HEADS) - 2)}",
    ]
    for name, row in _rows(comparison):
        cells = row if isinstance(row, tuple) else ("", f"not measured: {_line(row)}", *[""] * (len(HEADS) - 3))
        lines.append(f"| {' | '.join((name, *cells))} |")
    lines += ["", *(f"Note: {note}." for note in comparison.result.notes)]
    lines += [*(f"Fault: {fault}." for fault in comparison.result.faults()), ""]
    lines += ["| server | how a message gets in | what to know |", "|---|---|---|"]
    lines += [f"| {peer.title} | {peer.published} | {peer.differs} |" for peer in _peers(comparison.subjects)]
    return "\n".join(line for line in lines) + "\n"


def as_json(comparison: Comparison) -> dict[str, object]:
    return {
        **report_of(comparison.result),
        "versions": comparison.versions,
        "not_measured": comparison.not_measured,
        "peak_limited_by_the_load": sorted(comparison.limited),
    }


def _peers(subjects: Sequence[str | Peer]) -> Iterator[Peer]:
    return (subject for subject in subjects if isinstance(subject, Peer))


def _rows(comparison: Comparison) -> Iterator[tuple[str, tuple[str, ...] | str]]:
    """For each server its title and its cells, or why there are none."""
    for subject in comparison.subjects:
        name, title = (subject.name, subject.title) if isinstance(subject, Peer) else (subject, OURS[subject])
        if name in comparison.not_measured:
            yield title, comparison.not_measured[name]
        else:
            yield title, (comparison.versions.get(name, ""), *_figures(comparison, name))


def _figures(comparison: Comparison, name: str) -> tuple[str, ...]:
    def shown(figure: str) -> str:
        column = next(column for column in COLUMNS if column.figure == figure)
        return column.text(comparison.result.median(name, figure))

    def value(figure: str) -> float:
        return comparison.result.median(name, figure) or 0.0

    wanted = max(comparison.result.median(each, "cost_rate") or 0.0 for each in ("node", "baseline"))
    slower = f", at {value('cost_rate'):g}/s" if value("cost_rate") < wanted else ""
    return (
        ("≥ " if name in comparison.limited else "") + shown("peak_per_s"),
        shown("peak_cpu_share"),
        f"{shown('cost_us')} ({shown('cost_user_us')}){slower}",
        f"{value('p99_us') / 1000:.1f}",
        shown("bytes_per_delivery"),
    )


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")
