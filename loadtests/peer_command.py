"""The command ``peers``: which are asked for, and what is told of them."""

from __future__ import annotations

import shlex
import sys
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer import Option

from loadtests import comparison
from loadtests.command import Json, Node, not_measured
from loadtests.errors import SetupError
from loadtests.peer import NAMES, PEERS
from loadtests.peer_table import as_json, markdown, table_of
from loadtests.stage import NODE_COMMAND, Stage


def peers(
    peer: Annotated[
        list[str] | None,
        Option(metavar="NAME", help=f"Only this one; may be repeated. {', '.join(NAMES)}.", show_default="all"),
    ] = None,
    centrifugo: Annotated[
        Path | None, Option(metavar="PATH", help="The binary of Centrifugo 6, which no package registry has.")
    ] = None,
    few: Annotated[int, Option(min=1, help="Members while the peak is sought.")] = 100,
    many: Annotated[int, Option(min=1, help="Members while the cost of a delivery is taken.")] = 1000,
    rate: Annotated[int, Option(min=1, help="Messages per second for that.")] = 50,
    highest_rate: Annotated[int, Option(min=1, help="Messages per second that are never exceeded.")] = 16_000,
    seconds: Annotated[float, Option(min=0.1, help="How long each sample is offered.")] = 3,
    samples: Annotated[int, Option(min=1, help="How often each server is measured; the table shows medians.")] = 3,
    as_markdown: Annotated[
        bool, Option("--markdown", help="Print the tables as docs/performance.md has them.")
    ] = False,
    node: Node = NODE_COMMAND,
    json: Json = None,
) -> None:
    """Other servers beside a node and the C loop: peak deliveries on one core, and what a delivery costs.

    Their packages are installed at first use, into the cache folder. Exit code 2 when one that was asked for could not
    be measured; the others are all the same. All of them take about ten minutes.
    """
    unknown = [name for name in peer or () if name not in NAMES]
    if unknown:
        raise typer.BadParameter(f"no peer {unknown[0]}; there are {', '.join(NAMES)}", param_hint="--peer")
    if many < few:
        raise typer.BadParameter("at least as many as --few", param_hint="--many")
    asked = peer or [name for name in NAMES if name != "centrifugo" or centrifugo]
    scenario = comparison.Peers(
        [each for each in PEERS if each.name in asked], few, many, rate, seconds, samples, highest_rate, centrifugo
    )
    console = Console()
    try:
        with Stage(node=node) as stage:
            found = comparison.run(scenario, stage, console)
    except SetupError as error:
        raise not_measured(error) from None
    console.print(table_of(found))
    for note in found.result.notes:
        console.print(f"[yellow]note:[/] {note}")
    for fault in found.result.faults():
        console.print(f"[red]fault:[/] {fault}")
    if as_markdown:
        print(markdown(found, shlex.join(["python", "-m", "loadtests", *sys.argv[1:]])))
    if json is not None:
        json.write_text(dumps(as_json(found), indent=2, ensure_ascii=False) + "\n")
    if found.result.faults():
        raise typer.Exit(1)
    if found.not_measured:
        raise typer.Exit(2)
