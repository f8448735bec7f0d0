"""The command ``bench``: the load tests, small, on the user's machine. They are a package of their own, in a process of
their own: a node never imports them."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from server.cli.common import AsJson


def bench(
    as_json: AsJson = False,
    scale: Annotated[float, typer.Option(hidden=True)] = 1.0,
) -> None:
    """Measure a node of its own on this machine, beside a bare C loop: fan-out, chat, connecting, memory, storms. Takes
    about two minutes, a core for the node and one for the load; needs redis-server and a C compiler. Exit code 1 if a
    message was lost or doubled, 2 if something could not be measured.

    [bold]roomcast bench[/bold]; single scenarios at any size: [bold]python -m loadtests --help[/bold]
    """
    command = [sys.executable, "-m", "loadtests", "bench", "--scale", str(scale), *(["--json", "-"] if as_json else [])]
    raise typer.Exit(subprocess.run(command, check=False).returncode)
