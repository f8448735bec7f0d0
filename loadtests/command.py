"""How a scenario becomes a command: the fields of its dataclass are the options, its docstring is the help.

``presence`` and ``node`` are added for what is played on a :class:`Stage`, ``json`` and ``report`` for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from rich.console import Console
from typer import Option

from loadtests.errors import SetupError
from loadtests.report import print_result, write_json, write_page
from loadtests.result import Result
from loadtests.stage import NODE_COMMAND, Presence, Stage

S = TypeVar("S")
Write = Callable[[Result], None]
"""Writes the files that the user asked for, of a result that may not be the last."""

PresenceMode = Annotated[Presence, Option(help="Presence mode of the node (ROOMCAST_PRESENCE_BROADCAST).")]
Node = Annotated[
    str,
    Option(
        metavar="COMMAND",
        help="What is measured as the node, any server that speaks its protocol. The words {port}, {redis_port}, "
        "{channel} and {room} are filled in, and ROOMCAST_HOST, ROOMCAST_PORT, ROOMCAST_BROKER are set.",
        show_default="python -m server serve",
    ),
]
Json = Annotated[Path | None, Option(metavar="PATH", help="Write all samples, medians and ratios there, too.")]
Report = Annotated[Path | None, Option(metavar="PATH", help="Write a page there with all figures, and plots of them.")]


def not_measured(error: SetupError) -> typer.Exit:
    """Told; what remains is to raise it."""
    Console(stderr=True).print(f"not measured: {error}", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(2)


def alone(app: typer.Typer, name: str, scenario: type[S], run: Callable[[S, Console], Result]) -> None:
    """A command whose scenario starts all it needs by itself."""

    def measure(size: S, console: Console, write: Write) -> Result:
        return run(size, console)

    _register(app, name, scenario, [], measure)


def staged(
    app: typer.Typer,
    name: str,
    scenario: type[S],
    run: Callable[[S, Stage, Console], Result],
    presence: Presence = "rooms",
) -> None:
    """A command whose scenario is played on a :class:`Stage`."""
    lasting(app, name, scenario, lambda size, stage, console, write: run(size, stage, console), presence)


def lasting(
    app: typer.Typer,
    name: str,
    scenario: type[S],
    run: Callable[[S, Stage, Console, Write], Result],
    presence: Presence = "rooms",
) -> None:
    """As :func:`staged`, for a scenario that writes what it has so far."""

    def measure(size: S, console: Console, write: Write, *, presence: Presence, node: str) -> Result:
        with Stage(node=node, presence=presence) as stage:
            return run(size, stage, console, write)

    more = [_option("presence", PresenceMode, presence), _option("node", Node, NODE_COMMAND)]
    _register(app, name, scenario, more, measure)


def _option(name: str, annotation: Any, default: object) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _register(
    app: typer.Typer, name: str, scenario: type[S], more: Sequence[Parameter], measure: Callable[..., Result]
) -> None:
    hints = get_type_hints(scenario, include_extras=True)
    own = [_option(field.name, hints[field.name], field.default) for field in fields(scenario)]  # type: ignore[arg-type]
    assert all(option.default is not MISSING for option in own), "every size has a default"
    outputs = [_option("json", Json, None), _option("report", Report, None)]

    def command(**given: Any) -> None:
        json, report = given.pop("json"), given.pop("report")
        extra = {option.name: given.pop(option.name) for option in more}

        def write(result: Result) -> None:
            if json is not None:
                write_json(result, json)
            if report is not None:
                write_page(result, report)

        console = Console()
        try:
            result = measure(scenario(**given), console, write, **extra)
        except SetupError as error:
            raise not_measured(error) from None
        print_result(result, console)
        write(result)
        if result.faults():
            raise typer.Exit(1)

    command.__doc__ = scenario.__doc__
    vars(command)["__signature__"] = Signature([*own, *more, *outputs])
    app.command(name)(command)
