"""The entry point: all commands, in the order of ``--help``. Every error is one line that says what to do."""

from __future__ import annotations

import sys
from typing import Annotated, Final, NoReturn

import typer

from broker.base import BrokerError
from server.cli import acting, benching, checking, looking, serving
from server.cli.common import MISTAKE
from server.redact import redact
from server.settings import SettingsError
from server.version import VERSION

EXIT_CODES: Final = (
    "Exit codes: 0 done; 1 not all nodes answered, or a check failed; 2 a mistake in the command, or the broker is "
    "away; 130 ended by Ctrl-C."
)
SETTINGS: Final = (
    "Every option is also an environment variable (--ping-s is ROOMCAST_PING_S) and a key of the YAML file (ping_s). "
    "Options win over the environment, the environment over the file. Times take s, m, h, d; sizes KiB, MiB."
)

app = typer.Typer(
    name="roomcast",
    help="Horizontally scalable pub/sub broadcast over WebSockets.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command(rich_help_panel="Serve", epilog=SETTINGS)(serving.serve)
for command in (looking.tail, looking.history, looking.presence, looking.rooms, looking.nodes):
    app.command(rich_help_panel="Look")(command)
for command in (acting.publish, acting.disconnect, acting.token):
    app.command(rich_help_panel="Act")(command)
for command in (checking.check, benching.bench):
    app.command(rich_help_panel="Try")(command)


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(VERSION)
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", metavar="", callback=_tell_version, is_eager=True, help="Print the version.")
]


@app.callback()
def _roomcast(version: Version = False) -> None: ...


def main() -> NoReturn:
    """The entry point of ``roomcast`` and ``python -m server``. Exits as ``EXIT_CODES`` says."""
    try:
        code = app(standalone_mode=False)
    except (SettingsError, BrokerError) as error:
        _fail(str(error))
    except Exception as error:
        # Typer's own errors (unknown option, missing argument) share no public class but this method.
        if not hasattr(error, "format_message"):
            raise
        if not error.format_message():
            sys.exit(MISTAKE)  # no command at all: the help has been shown
        _fail(f"{error.format_message()} (`{_help_about(error)}` lists what there is)")
    sys.exit(code or 0)


def _help_about(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    if context is None or context.parent is None:
        return "roomcast --help"
    return f"roomcast {context.info_name} --help"


def _fail(message: str) -> NoReturn:
    print(f"roomcast: {redact(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(MISTAKE)
