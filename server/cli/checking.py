"""The command ``check``: a deployment, tried from outside."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.cli.common import INCOMPLETE, AsJson, Config, console, for_console, print_json
from server.options import with_settings
from server.settings import SettingsError

if TYPE_CHECKING:
    from server.check.report import Line

SIGNS: Final = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red"), "skipped": ("–", "dim")}


@with_settings("secret", "audience", "issuer")
def check(
    url: Annotated[str, typer.Argument(help="As clients use it: https://chat.example.com or wss://…/ws.")],
    token: Annotated[
        str | None, typer.Option(metavar="JWT", help="To get in with; else one is made of --secret.")
    ] = None,
    room: Annotated[str | None, typer.Option(metavar="NAME", help="To try things in; else one of its own.")] = None,
    origin: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="Of pages that must be allowed, beside the URL's own.")
    ] = None,
    nodes: Annotated[
        int, typer.Option(min=1, max=100, metavar="NUMBER", help="It is a failure if fewer nodes answer.")
    ] = 1,
    direct: Annotated[
        bool, typer.Option("--direct", metavar="", help="The URL is a node itself, not the proxy before it.")
    ] = False,
    ca: Annotated[
        str | None, typer.Option("--ca", metavar="FILE", help="Trust this authority's certificates, too.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
    **options: str | None,
) -> None:
    """Try a deployment from outside, through its proxy, and say what to change. Takes a little longer than a ping of
    the nodes (10 s). Exit code 1 if a check failed.

    [bold]ROOMCAST_SECRET=… roomcast check https://chat.example.com --nodes 2[/bold]
    """
    from server.check.client import Dialer
    from server.check.report import is_good
    from server.check.run import CHECKS, run
    from server.check.target import parse_target
    from server.check.tickets import tickets
    from server.check.world import World
    from server.console import check_room

    settings = for_console(options, config)
    try:
        target = parse_target(url)
        trust = ssl.create_default_context(cafile=ca) if target.secure else None
    except (ValueError, OSError) as error:
        raise SettingsError(str(error)) from None
    room = room or f"roomcast-check:{secrets.token_hex(6)}"
    check_room(room)
    world = World(Dialer(target, trust), tickets(settings, token), room, tuple(origin or ()), direct, nodes)

    async def collect() -> list[Line]:
        err = Console(stderr=True)
        with err.status("") as status:
            lines: list[Line] = []

            def tell(name: str) -> None:
                status.update(f"[{len(lines) + 1}/{len(CHECKS)}] {name}")

            async for line in run(world, tell):
                lines.append(line)
            return lines

    lines = asyncio.run(collect())
    if as_json:
        print_json({"url": target.url, "ok": is_good(lines), "checks": [line.as_json() for line in lines]})
    else:
        _show(target.url, lines)
    if not is_good(lines):
        sys.exit(INCOMPLETE)


def _show(url: str, lines: list[Line]) -> None:
    from server.check.report import NEEDS

    table = Table("", "check", "found", box=None, title=Text(url), title_justify="left")
    untried = [line.name for line in lines if line.finding.detail.startswith(NEEDS)]
    for line in lines:
        if line.name in untried:
            continue
        sign, style = SIGNS[line.finding.status]
        found = Text(line.finding.detail)
        if line.finding.advice:
            found.append("\n→ " + line.finding.advice, style="bold" if line.finding.status == "failed" else "")
        table.add_row(Text(sign, style), line.name, found)
    if untried:
        sign, style = SIGNS["skipped"]
        table.add_row(Text(sign, style), "not tried", f"for want of the above: {', '.join(untried)}")
    console().print(table, soft_wrap=False)
    counts = {status: sum(line.finding.status == status for line in lines) for status in SIGNS}
    print(f"{counts['ok']} ok, {counts['warning']} to consider, {counts['failed']} failed, {counts['skipped']} skipped")
