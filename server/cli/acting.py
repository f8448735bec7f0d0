"""Commands that do something through the broker, beside the nodes: publish, disconnect; and token."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from server.cli.common import BROKER, AsJson, Config, Room, for_console, print_json
from server.options import with_settings


@with_settings(*BROKER, "history")
def publish(
    room: Room,
    data: Annotated[str, typer.Argument(help='Any JSON, e.g. \'{"text":"hi"}\'.')],
    config: Config = None,
    as_json: AsJson = False,
    **options: str | None,
) -> None:
    """Append a message to a room's log, as the application (no user), and print its position.

    [bold]roomcast publish chat:lobby '{"text":"maintenance at 5"}'[/bold]
    """
    from server.console import publish as append

    position = asyncio.run(append(for_console(options, config), room, data))
    epoch = position.epoch.decode()
    if as_json:
        print_json({"room": room, "epoch": epoch, "offset": position.offset, "tag": position.tag.decode()})
    else:
        print(f"{room} {position.offset} (epoch {epoch})")


@with_settings(*BROKER)
def disconnect(
    user: Annotated[str | None, typer.Argument(help="The user's id; digits are an integer.")] = None,
    session: Annotated[str | None, typer.Option(metavar="KEY", help="Only this session.")] = None,
    token_id: Annotated[str | None, typer.Option(metavar="JTI", help="Only who came with this token (jti).")] = None,
    config: Config = None,
    as_json: AsJson = False,
    **options: str | None,
) -> None:
    """Close connections on all nodes with 4004: those for which everything holds that is given. They may come back.

    [bold]roomcast disconnect alice[/bold]
    """
    from server.operating import disconnect as send_away

    asyncio.run(send_away(for_console(options, config), user, session, token_id))
    if as_json:
        print_json({"sent": True})
    else:
        print("sent to all nodes")


@with_settings("secret", "audience", "issuer")
def token(
    user: Annotated[str, typer.Argument(help="The user's id; digits are an integer.")],
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it is good: 15m, 24h.")] = "24h",
    room: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN=ACTIONS", help="A grant, e.g. 'chat:*=join,publish'; none: rooms are free."),
    ] = None,
    broadcast: Annotated[bool, typer.Option("--broadcast", metavar="", help="Grant the op broadcast.")] = False,
    config: Config = None,
    as_json: AsJson = False,
    **options: str | None,
) -> None:
    """Make a token signed with ROOMCAST_SECRET, for trying things out and for scripts.

    [bold]ROOMCAST_SECRET=… roomcast token alice --ttl 15m --room 'chat:*=join,publish'[/bold]
    """
    from server.minting import mint

    made = mint(for_console(options, config), user, ttl, room or [], broadcast)
    if as_json:
        print_json({"token": made})
    else:
        print(made)
