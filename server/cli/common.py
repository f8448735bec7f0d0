"""What commands share: exit codes, options, and how they print."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Annotated, Final

import typer
from rich.console import Console

from server import logs
from server.configuration import load_settings
from server.settings import Settings

INCOMPLETE: Final = 1
"""Exit code of a command whose answer is not whole, or not good."""
MISTAKE: Final = 2
"""Exit code for what the user has to change, and for a broker that is away."""

BROKER: Final = ("broker", "broker_password_file", "prefix")
"""Settings of every command that looks or acts through the broker."""

Config = Annotated[str | None, typer.Option("--config", metavar="FILE", help="YAML file with settings.")]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON.")]
AsJsonLines = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object per line.")]
Room = Annotated[str, typer.Argument(help="The room's name.")]


def for_console(options: Mapping[str, object], config: str | None) -> Settings:
    """Settings of a command that looks through the broker; what goes wrong there is told by its error, not by a log."""
    logs.configure("human", "error")
    return load_settings(options, os.environ, config)


def console() -> Console:
    """For results: nothing is coloured that was not asked to be, and long lines stay whole."""
    return Console(highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """One line, at once: it may be read by a program that waits for it."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def clock(at_s: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))
