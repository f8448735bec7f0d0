"""Commands that look through the broker, beside the nodes: tail, history, presence, rooms, nodes."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from server.cli.common import BROKER, INCOMPLETE, AsJsonLines, Config, Room, clock, console, for_console, print_json
from server.options import with_settings


@with_settings(*BROKER)
def tail(
    room: Room,
    since: Annotated[
        int | None, typer.Option(min=0, metavar="OFFSET", help="Begin after this offset: 0 is all that is kept.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, metavar="NUMBER", help="End after so many messages.")] = None,
    config: Config = None,
    as_json: AsJsonLines = False,
    **options: str | None,
) -> None:
    """Follow a room's messages until Ctrl-C.

    [bold]roomcast tail chat:lobby --since 0[/bold]
    """
    from server.console import tail as follow

    asyncio.run(follow(for_console(options, config), room, since, count, print_json if as_json else _show))


@with_settings(*BROKER)
def history(
    room: Room,
    limit: Annotated[int, typer.Option(min=1, max=100_000, metavar="NUMBER", help="So many, the newest.")] = 50,
    config: Config = None,
    as_json: AsJsonLines = False,
    **options: str | None,
) -> None:
    """Show the newest messages of a room that are kept, oldest first.

    [bold]roomcast history chat:lobby --limit 10[/bold]
    """
    from server.operating import history as read

    messages = asyncio.run(read(for_console(options, config), room, limit))
    for message in messages:
        if as_json:
            print_json(message)
        else:
            _show(message)
    if not messages and not as_json:
        _note(f"nothing is kept of {room}")


def _show(message: dict[str, Any]) -> None:
    """One message as a line: where it stands, when it came, who wrote it, what it says."""
    line = Text(f"{message['offset']:6}  {clock(message['ts'])}  ", style="dim")
    line.append("application" if message["user_id"] is None else json.dumps(message["user_id"]), style="cyan")
    line.append("  " + json.dumps(message["data"], ensure_ascii=False), style="none")
    console().print(line)


@with_settings(*BROKER)
def presence(
    room: Annotated[str | None, typer.Argument(help="The room's name; without one: everywhere.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", metavar="", help="Go on with who comes and goes, until Ctrl-C.")
    ] = False,
    config: Config = None,
    as_json: AsJsonLines = False,
    **options: str | None,
) -> None:
    """Tell who is in a room, or anywhere, over all nodes.

    [bold]roomcast presence --watch[/bold]
    """
    from server.console import presence as look

    settings = for_console(options, config)
    asyncio.run(look(settings, room, watch, _tell_as_json if as_json else _tell))


def _tell_as_json(user: str, online: bool | None, users: list[str]) -> None:
    fields: dict[str, object] = {"ts": time.time(), "count": len(users)}
    if online is None:
        print_json({**fields, "users": [json.loads(each) for each in users]})
    else:
        print_json({**fields, "user_id": json.loads(user), "status": "online" if online else "offline"})


def _tell(user: str, online: bool | None, users: list[str]) -> None:
    at = time.time()
    moment = time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 1000) % 1000:03d}"
    what = " ".join(users) if online is None else f"{'+' if online else '-'} {user}"
    console().print(f"{moment}  {len(users):5} here  {what}", markup=False)


@with_settings(*BROKER)
def rooms(
    pattern: Annotated[str, typer.Argument(help="Only rooms that match; * stands for any characters.")] = "*",
    config: Config = None,
    as_json: AsJsonLines = False,
    **options: str | None,
) -> None:
    """List the rooms that have members, with their connections on all nodes. Exit code 1 if a node did not answer.

    [bold]roomcast rooms 'chat:*'[/bold]
    """
    from server.census import RoomsPage
    from server.operating import rooms as list_rooms

    settings = for_console(options, config)
    table = Table("room", _number("connections"), box=None)
    missing: set[str] = set()

    def show(page: RoomsPage) -> None:
        missing.update(page.missing)
        for room, connections in page.rooms:
            if as_json:
                print_json({"room": room, "connections": connections})
            else:
                table.add_row(Text(room), str(connections))

    asyncio.run(list_rooms(settings, pattern, show))
    if not as_json and table.row_count:
        console().print(table)
    elif not as_json:
        _note("no room has members" if pattern == "*" else f"no room that matches {pattern} has members")
    if missing:
        print(f"roomcast: no answer from {', '.join(sorted(missing))}: what they hold is not counted", file=sys.stderr)
        sys.exit(INCOMPLETE)


@with_settings(*BROKER)
def nodes(
    config: Config = None,
    as_json: AsJsonLines = False,
    **options: str | None,
) -> None:
    """List the nodes that live, as each described itself within the last 15 s.

    [bold]roomcast nodes --broker redis://redis:6379[/bold]
    """
    from server.console import nodes as list_nodes

    found = asyncio.run(list_nodes(for_console(options, config)))
    if as_json:
        for node in found:
            print_json(node)
        return
    if not found:
        _note("no node lives with this broker and prefix")
        return
    table = Table("node", "version", _number("up"), _number("connections"), _number("rooms"), box=None)
    for node in found:
        up = f"{max(0, time.time() - float(str(node['started']))):.0f} s"
        table.add_row(Text(str(node["node"])), str(node["version"]), up, str(node["connections"]), str(node["rooms"]))
    console().print(table)


def _note(text: str) -> None:
    """There is nothing to show: said where no program reads results."""
    print(f"roomcast: {text}", file=sys.stderr)


def _number(name: str) -> Column:
    return Column(name, justify="right")
