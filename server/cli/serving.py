"""The command ``serve``: run a node."""

from __future__ import annotations

import os
import sys

from server import logs
from server.cli.common import Config, console
from server.options import with_settings
from server.redact import redact
from server.settings import Settings, SettingsError, load_settings


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
    out = console()
    out.print(f"[bold]Roomcast[/bold] in development mode: anybody is whoever ?user= says. {redact(settings.broker)}")
    for name, url in (
        ("broker", redact(settings.broker)),
        ("demo", f"http://{host}:{settings.port}/demo"),
        ("clients", f"ws://{host}:{settings.port}/ws?user=alice"),
        ("health", f"http://{host}:{settings.port}/readyz"),
        ("metrics", f"http://{host}:{settings.port}/metrics"),
    ):
        out.print(f"  {name:8} [cyan]{url}[/cyan]")
