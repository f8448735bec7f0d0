"""``roomcast bench``: every scenario small, one after the other, for a first idea of a machine in about a minute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from loadtests import fanout, handshake, idle, presence_storm, storm, talk
from loadtests.result import Result
from loadtests.stage import NODE_COMMAND, Presence, Stage


class Part(NamedTuple):
    """One scenario, and which of its figures are shown."""

    run: Callable[[Stage, Console], Result]
    title: str
    figures: Sequence[str]
    presence: Presence = "rooms"


def parts(scale: float = 1.0) -> list[Part]:
    """``scale`` 1 is what a user runs; tests take a fraction."""

    def size(count: int) -> int:
        return max(10, round(count * scale))

    seconds = 3 * scale
    small = fanout.Fanout(size(100), size(1000), seconds, warmup_s=0.5 * scale, samples=1)
    many = fanout.Fanout(size(1000), size(50), seconds, warmup_s=0.5 * scale, samples=1)
    chat = talk.Chat(size(100), size(500), seconds, samples=1).talk(warmup_s=0.5 * scale)
    hands = handshake.Handshake(seconds, samples=1)
    resting = idle.Idle(size(1000), hold_s=1.0)
    back = storm.Storm(size(1000))
    come = presence_storm.PresenceStorm(size(1000))
    return [
        Part(
            lambda stage, console: fanout.run(small, stage, console),
            f"fan-out, {small.subscribers} members × {small.rate}/s",
            ("deliveries_per_s", "cpu_us_per_delivery", "p99_us"),
        ),
        Part(
            lambda stage, console: fanout.run(many, stage, console),
            f"fan-out, {many.subscribers:,} members × {many.rate}/s",
            ("cpu_us_per_delivery", "p99_us"),
        ),
        Part(
            lambda stage, console: talk.run(chat, stage, console),
            f"chat, {chat.rooms} rooms of {chat.room_size}, {chat.rate} messages/s",
            ("cpu_us_per_message", "p99_us"),
        ),
        Part(
            lambda stage, console: handshake.run(hands, stage, console),
            "connecting",
            ("handshakes_per_s", "joins_per_s"),
        ),
        Part(
            lambda stage, console: idle.run(resting, stage, console),
            f"idle, {resting.connections:,} connections",
            ("kib_per_connection",),
        ),
        Part(
            lambda stage, console: storm.run(back, stage, console),
            f"storm, {back.members:,} clients resume at once",
            ("back_per_s", "back_p99_ms"),
        ),
        Part(
            lambda stage, console: presence_storm.run(come, stage, console),
            f"presence, {come.connections:,} users come online",
            ("joins_per_s", "redis_calls_per_join"),
            "all",
        ),
    ]


def run(console: Console, *, node: str = NODE_COMMAND, scale: float = 1.0) -> list[Result]:
    """All parts. Raises :class:`loadtests.errors.SetupError` when one could not be measured."""
    results = []
    with ExitStack() as stack:
        stages: dict[Presence, Stage] = {}
        for part in parts(scale):
            console.print(f"[dim]{part.title}[/]")
            if part.presence not in stages:
                stages[part.presence] = stack.enter_context(Stage(node=node, presence=part.presence))
            results.append(part.run(stages[part.presence], console))
    return results


def remarks_of(results: Sequence[Result]) -> list[str]:
    """What speaks against the figures, each once, and what went wrong."""
    notes = dict.fromkeys(note for result in results for note in result.notes)
    return [*notes, *(f"{result.scenario}: {fault}" for result in results for fault in result.faults())]


def table_of(results: Sequence[Result], scale: float = 1.0) -> Table:
    table = Table("", "one core", title="Roomcast on this machine", title_justify="left")
    table.columns[1].justify = "right"
    table.add_column("bare C loop", justify="right")
    table.add_column("ratio", justify="right")
    for part, result in zip(parts(scale), results, strict=True):
        table.add_row(f"[bold]{part.title}[/]")
        for figure in part.figures:
            column = next(column for column in result.columns if column.figure == figure)
            ratio = result.ratio(figure)
            cells = [column.text(result.median(server, figure)) for server in ("node", "baseline")]
            table.add_row(f"  {column.title}", *cells, "–" if ratio is None else f"{ratio:.2f}")
    return table
