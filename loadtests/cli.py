"""The command line: ``python -m loadtests fanout|idle|handshake|peers …``."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtests import (
    benching,
    cluster,
    crossing,
    fanout,
    growth,
    guard,
    handshake,
    idle,
    masters,
    peer_command,
    presence_storm,
    rolling,
    sizing,
    slow,
    small,
    soak,
    storm,
    talk,
    workers,
)
from loadtests.command import Node, alone, lasting, not_measured, staged
from loadtests.errors import SetupError
from loadtests.report import report_of
from loadtests.stage import NODE_COMMAND

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="""Measure a Roomcast node against a bare C loop in the same run.

Each scenario starts its own redis-server, then the node and the baseline in turn, each alone on the first core;
Redis, the publisher and the load client (C, compiled with cc at first use) share the second. The baseline hears the
same Redis channel and sends the same bytes, so the ratio of the two says what the node costs on any machine.

Exit code 0: measured and every message arrived once, in order. 1: a message was lost, doubled or reordered, or a
connection failed. 2: could not be measured; the text says why. A missed goal is printed and does not change the code.

Examples:

python -m loadtests fanout --subscribers 1000 --rate 50 --json fanout.json --report fanout.html

python -m loadtests idle --connections 8000

python -m loadtests handshake
""",
)

staged(app, "fanout", fanout.Fanout, fanout.run)
staged(app, "growth", growth.Growth, growth.run)
staged(app, "small", small.Small, small.run)
staged(app, "chat", talk.Chat, talk.run_chat)
staged(app, "many-rooms", talk.ManyRooms, talk.run_many_rooms)
staged(app, "cross-node", crossing.Crossing, crossing.run)
staged(app, "idle", idle.Idle, idle.run)
staged(app, "handshake", handshake.Handshake, handshake.run)
staged(app, "presence-storm", presence_storm.PresenceStorm, presence_storm.run, presence="all")
staged(app, "reconnect-storm", storm.Storm, storm.run)
staged(app, "slow", slow.Slow, slow.run)
lasting(app, "soak", soak.Soak, soak.run)
alone(app, "rolling", rolling.Rolling, rolling.run)
alone(app, "cluster", cluster.Cluster, cluster.run)
alone(app, "masters", masters.Masters, masters.run)
alone(app, "workers", workers.Workers, workers.run)
app.command()(peer_command.peers)
app.command()(sizing.model)


@app.command()
def bench(
    json: Annotated[Path | None, typer.Option(metavar="PATH", help="Write all reports there; -: to stdout.")] = None,
    scale: Annotated[float, typer.Option(hidden=True, min=0.01)] = 1.0,
    node: Node = NODE_COMMAND,
) -> None:
    """All scenarios small, one after the other: a first idea of a machine in about two minutes."""
    plain = json is not None and str(json) == "-"
    console = Console(stderr=plain)
    try:
        results = benching.run(console, node=node, scale=scale)
    except SetupError as error:
        raise not_measured(error) from None
    console.print(benching.table_of(results, scale))
    for remark in benching.remarks_of(results):
        console.print(f"[yellow]note:[/] {remark}")
    if plain:
        print(dumps([report_of(result) for result in results], ensure_ascii=False))
    elif json is not None:
        json.write_text(dumps([report_of(result) for result in results], indent=2, ensure_ascii=False) + "\n")
    if any(result.faults() for result in results):
        raise typer.Exit(1)


@app.command(name="guard")
def guard_command(
    record: Annotated[bool, typer.Option("--record", help="Write what was measured as the budget.")] = False,
    valgrind: Annotated[bool, typer.Option(help="Count instructions; else measure CPU time.")] = True,
    node: Node = NODE_COMMAND,
) -> None:
    """Count the instructions that a node spends on its hot paths and compare them with the budget in budget.json.

    Exit code 1: one of them costs over 15 % more than its budget. Without valgrind CPU time is measured and shown, and
    never makes it fail.
    """
    try:
        within = guard.run(Console(), node=node, record=record, valgrind=valgrind)
    except SetupError as error:
        raise not_measured(error) from None
    if not within:
        raise typer.Exit(1)
