"""The functions that bot.yaml names. Plain functions: each call runs in a thread."""

from typing import Any

counts: dict[str, int] = {}


def open(handler: Any) -> None:
    counts[handler.session["id"]] = 0
    handler.write_message("Say something.")


def on_message(handler: Any, message: str) -> None:
    counts[handler.session["id"]] += 1
    handler.write_message(f"Got message {counts[handler.session['id']]}: {message}")


def on_close(handler: Any) -> None:
    del counts[handler.session["id"]]
