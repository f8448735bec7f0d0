"""The command line. Every error is one line that says what to do, with exit code 2."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from broker.base import BrokerError
from server import logs
from server.options import with_settings
from server.redact import redact
from server.settings import Settings, SettingsError, load_settings

app = typer.Typer(
    name="roomcast",
    help="Horizontally scalable pub/sub broadcast over WebSockets.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

Config = Annotated[str | None, typer.Option("--config", metavar="FILE", help="YAML file with settings.")]


def main() -> NoReturn:
    """The entry point of ``roomcast`` and ``python -m server``. Exits 0, 2 for errors of the user, 130 for Ctrl-C."""
    try:
        code = app(standalone_mode=False)
    except (SettingsError, BrokerError) as error:
        _fail(str(error))
    except Exception as error:
        # Typer's own errors (unknown option, missing argument) share no public class but this method.
        if not hasattr(error, "format_message"):
            raise
        if not error.format_message():
            sys.exit(2)  # no command at all: the help has been shown
        _fail(f"{error.format_message()} (`roomcast --help` lists what there is)")
    sys.exit(code or 0)


def _fail(message: str) -> NoReturn:
    print(f"roomcast: {redact(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)


@app.command(
    epilog="Every option is also an environment variable (--ping-s is ROOMCAST_PING_S) and a key of the YAML file "
    "(ping_s). Options win over the environment, the environment over the file. Times take s, m, h, d; sizes KiB, MiB."
)
@with_settings()
def serve(config: Config = None, **options: str | bool | None) -> None:
    """Run one node: WebSockets at /ws, /healthz, /readyz, /metrics.

    [bold]roomcast serve --dev[/bold]  to try it out, nothing else needed\n
    [bold]ROOMCAST_SECRET=… roomcast serve --host 0.0.0.0 --broker redis://redis:6379[/bold]  one of several nodes
    """
    settings = load_settings(options, os.environ, config)
    # After the settings: a mistake in them is told without loading the rest.
    from server.app import create_app
    from server.application import load_hub
    from server.preflight import check_broker_login, check_port
    from server.reload import is_child, keep_fresh
    from server.serve import run

    if settings.dev and settings.app is not None and not is_child():
        sys.exit(keep_fresh())
    logs.configure(settings.log_format, settings.log_level)
    try:
        node = create_app(settings) if settings.app is None else load_hub(settings.app).node(settings)
    except ValueError as error:  # of the broker URL
        raise SettingsError(str(error)) from None
    check_port(settings.host, settings.port)
    check_broker_login(settings.broker, settings.broker_password_file)
    _greet(settings)
    run(node)


def _greet(settings: Settings) -> None:
    """Where to look, for whoever started a node by hand."""
    if not settings.dev or settings.port == 0:
        return
    host = "localhost" if settings.host in ("0.0.0.0", "::", "127.0.0.1", "::1") else settings.host
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"[bold]Roomcast[/bold] in development mode: anybody is whoever ?user= says. {redact(settings.broker)}"
    )
    for name, url in (
        ("broker", redact(settings.broker)),
        ("demo", f"http://{host}:{settings.port}/demo"),
        ("clients", f"ws://{host}:{settings.port}/ws?user=alice"),
        ("health", f"http://{host}:{settings.port}/readyz"),
        ("metrics", f"http://{host}:{settings.port}/metrics"),
    ):
        console.print(f"  {name:8} [cyan]{url}[/cyan]")


def _for_console(options: Mapping[str, object], config: str | None) -> Settings:
    """Settings of a command that looks through the broker; what goes wrong there is told by its error, not by a log."""
    logs.configure("human", "error")
    return load_settings(options, os.environ, config)


@app.command()
@with_settings("secret", "audience", "issuer")
def token(
    user: Annotated[str, typer.Argument(help="The user's id; digits are an integer.")],
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it is good: 15m, 24h.")] = "24h",
    room: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN=ACTIONS", help="A grant, e.g. 'chat:*=join,publish'; none: rooms are free."),
    ] = None,
    broadcast: Annotated[bool, typer.Option("--broadcast", help="Grant the op broadcast.")] = False,
    config: Config = None,
    **options: str | None,
) -> None:
    """Make a token signed with ROOMCAST_SECRET, for trying things out and for scripts.

    [bold]ROOMCAST_SECRET=… roomcast token alice --ttl 15m --room 'chat:*=join,publish'[/bold]
    """
    from server.minting import mint

    print(mint(_for_console(options, config), user, ttl, room or [], broadcast))


@app.command()
@with_settings("broker", "broker_password_file", "prefix", "history")
def publish(
    room: Annotated[str, typer.Argument(help="The room's name.")],
    data: Annotated[str, typer.Argument(help='Any JSON, e.g. \'{"text":"hi"}\'.')],
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the position as JSON.")] = False,
    **options: str | None,
) -> None:
    """Append a message to a room's log, as the application (no user), and print its position.

    [bold]roomcast publish chat:lobby '{"text":"maintenance at 5"}'[/bold]
    """
    from server.console import publish as append

    settings = _for_console(options, config)
    position = asyncio.run(append(settings, room, data))
    fields = {"room": room, "epoch": position.epoch.decode(), "offset": position.offset, "tag": position.tag.decode()}
    print(json.dumps(fields) if as_json else f"{room} {position.offset} (epoch {fields['epoch']})")


@app.command()
@with_settings("broker", "broker_password_file", "prefix")
def tail(
    room: Annotated[str, typer.Argument(help="The room's name.")],
    since: Annotated[
        int | None, typer.Option(min=0, metavar="OFFSET", help="Begin after this offset: 0 is all that is kept.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, metavar="NUMBER", help="End after so many messages.")] = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    **options: str | None,
) -> None:
    """Follow a room's messages until Ctrl-C.

    [bold]roomcast tail chat:lobby --since 0[/bold]
    """
    from server.console import tail as follow

    settings = _for_console(options, config)
    console = Console(highlight=False, soft_wrap=True)

    def show(message: dict[str, object]) -> None:
        if as_json:
            print(json.dumps(message, ensure_ascii=False), flush=True)
        else:
            console.print(f"[dim]{message['offset']}[/dim]", end=" ")
            console.print(json.dumps(message["data"], ensure_ascii=False), markup=False)

    asyncio.run(follow(settings, room, since, count, show))


@app.command()
@with_settings("broker", "broker_password_file", "prefix")
def presence(
    room: Annotated[str | None, typer.Argument(help="The room's name; without one: everywhere.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with who comes and goes, until Ctrl-C.")] = False,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    **options: str | None,
) -> None:
    """Tell who is in a room, or anywhere, over all nodes.

    [bold]roomcast presence --watch[/bold]
    """
    from server.console import presence as look

    settings = _for_console(options, config)
    console = Console(highlight=False, soft_wrap=True)

    def tell(user: str, online: bool | None, users: list[str]) -> None:
        at = time.time()
        if as_json and online is None:
            print(
                json.dumps({"ts": at, "count": len(users), "users": [json.loads(each) for each in users]}), flush=True
            )
        elif as_json:
            status = "online" if online else "offline"
            fields = {"ts": at, "user_id": json.loads(user), "status": status, "count": len(users)}
            print(json.dumps(fields), flush=True)
        else:
            clock = time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 1000) % 1000:03d}"
            what = " ".join(users) if online is None else f"{'+' if online else '-'} {user}"
            console.print(f"{clock}  {len(users):5} here  {what}", markup=False)

    asyncio.run(look(settings, room, watch, tell))


@app.command()
@with_settings("broker", "broker_password_file", "prefix")
def nodes(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    **options: str | None,
) -> None:
    """List the nodes that live, as each described itself within the last 15 s.

    [bold]roomcast nodes --broker redis://redis:6379[/bold]
    """
    from server.console import nodes as list_nodes

    found = asyncio.run(list_nodes(_for_console(options, config)))
    if as_json:
        for node in found:
            print(json.dumps(node))
        return
    table = Table("node", "version", "up", "connections", "rooms", box=None)
    for node in found:
        up = f"{max(0, time.time() - float(str(node['started']))):.0f} s"
        table.add_row(str(node["node"]), str(node["version"]), up, str(node["connections"]), str(node["rooms"]))
    Console(highlight=False).print(table)


@app.command()
@with_settings("broker", "broker_password_file", "prefix")
def rooms(
    pattern: Annotated[str, typer.Argument(help="Only rooms that match; * stands for any characters.")] = "*",
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    **options: str | None,
) -> None:
    """List the rooms that have members, with their connections on all nodes. Exit code 1 if a node did not answer.

    [bold]roomcast rooms 'chat:*'[/bold]
    """
    from server.census import RoomsPage
    from server.operating import rooms as list_rooms

    settings = _for_console(options, config)
    console = Console(highlight=False, soft_wrap=True)
    missing: set[str] = set()

    def show(page: RoomsPage) -> None:
        missing.update(page.missing)
        for room, connections in page.rooms:
            if as_json:
                print(json.dumps({"room": room, "connections": connections}))
            else:
                console.print(f"{connections:8}  {room}", markup=False)

    asyncio.run(list_rooms(settings, pattern, show))
    if missing:
        print(f"roomcast: no answer from {', '.join(sorted(missing))}: what they hold is not counted", file=sys.stderr)
        sys.exit(1)


@app.command()
@with_settings("broker", "broker_password_file", "prefix")
def history(
    room: Annotated[str, typer.Argument(help="The room's name.")],
    limit: Annotated[int, typer.Option(min=1, max=100_000, metavar="NUMBER", help="So many, the newest.")] = 50,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    **options: str | None,
) -> None:
    """Show the newest messages of a room that are kept, oldest first.

    [bold]roomcast history chat:lobby --limit 10[/bold]
    """
    from server.operating import history as read

    found = asyncio.run(read(_for_console(options, config), room, limit))
    console = Console(highlight=False, soft_wrap=True)
    for message in found:
        if as_json:
            print(json.dumps(message, ensure_ascii=False))
        else:
            clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(message["ts"]))
            console.print(f"[dim]{message['offset']:6}  {clock}[/dim]", end="  ")
            console.print(f"{message['user_id']}  {json.dumps(message['data'], ensure_ascii=False)}", markup=False)


@app.command()
@with_settings("broker", "broker_password_file", "prefix")
def disconnect(
    user: Annotated[str | None, typer.Argument(help="The user's id; digits are an integer.")] = None,
    session: Annotated[str | None, typer.Option(metavar="KEY", help="Only this session.")] = None,
    token_id: Annotated[str | None, typer.Option(metavar="JTI", help="Only who came with this token (jti).")] = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    **options: str | None,
) -> None:
    """Close connections on all nodes with 4004: those for which everything holds that is given. They may come back.

    [bold]roomcast disconnect alice[/bold]
    """
    from server.operating import disconnect as send_away

    asyncio.run(send_away(_for_console(options, config), user, session, token_id))
    print(json.dumps({"sent": True}) if as_json else "sent to all nodes")
