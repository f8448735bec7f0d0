"""The command ``serve``: run a node."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from server import logs
from server.cli.common import Config, console
from server.configuration import load_settings
from server.options import with_settings
from server.redact import redact
from server.settings import Settings, SettingsError
from server.workplace import take_place

if TYPE_CHECKING:
    from server.app import Node


@with_settings()
def serve(config: Config = None, **options: str | bool | None) -> None:
    """Run one node, or several on one port (--workers): WebSockets at /ws, /healthz, /readyz, /metrics.

    [bold]roomcast serve --dev[/bold]  to try it out, nothing else needed\n
    [bold]ROOMCAST_SECRET=… roomcast serve --host 0.0.0.0 --broker redis://redis:6379[/bold]  one of several nodes
    """
    place = take_place(os.environ)
    settings = load_settings(options, os.environ, config)
    if place is not None:
        settings = place.settings(settings)
    # After the settings: a mistake in them is told without loading the rest.
    from server.preflight import check_broker_login, check_ports, take_files
    from server.reload import is_child, keep_fresh
    from server.workers import count_of, supervise

    if settings.dev and settings.app is not None and place is None and not is_child():
        sys.exit(keep_fresh())
    logs.configure(settings.log_format, settings.log_level)
    if place is None and count_of(settings) > 1:
        sys.exit(supervise(settings, _greet))
    take_files(settings.max_connections)
    node = _node(settings)
    if place is not None:
        place.mark_logs()
    else:
        metrics = [settings.metrics_port] if settings.metrics_port else []
        check_ports(settings.host, settings.port, metrics)
        check_broker_login(settings.broker, settings.broker_password_file)
        _greet(settings, settings.port, metrics)
    from server.running import run

    run(node, place)


def _node(settings: Settings) -> Node:
    from server.app import create_app
    from server.application import load_hub

    try:
        return create_app(settings) if settings.app is None else load_hub(settings.app).node(settings)
    except ValueError as error:  # of the broker URL
        raise SettingsError(str(error)) from None


def _greet(settings: Settings, port: int, metrics_ports: Sequence[int]) -> None:
    """Where to look, for whoever started a node by hand."""
    if not settings.dev or port == 0:
        return
    local = ("0.0.0.0", "::", "127.0.0.1", "::1")  # noqa: S104  # compared with, not bound to
    host = "localhost" if settings.host in local else settings.host
    out = console()
    out.print(f"[bold]Roomcast[/bold] in development mode: anybody is whoever ?user= says. {redact(settings.broker)}")
    for name, url in (
        ("broker", redact(settings.broker)),
        ("demo", f"http://{host}:{port}/demo"),
        ("clients", f"ws://{host}:{port}/ws?user=alice"),
        ("health", f"http://{host}:{port}/readyz"),
        *(("metrics", f"http://{host}:{each}/metrics") for each in metrics_ports or [port]),
    ):
        out.print(f"  {name:8} [cyan]{url}[/cyan]")
