"""Command line options made from the settings, so that a setting is declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from server.settings import Settings

Command = Callable[..., None]


def with_settings(*names: str) -> Callable[[Command], Command]:
    """Let a command take these settings (all of them if none is named) as options, next to its own parameters.

    The command gets them in ``**options``: texts as typed, None where an option was not given, for
    :func:`server.configuration.load_settings` to judge together with the environment and the file.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        fields = {name: Settings.model_fields[name] for name in names or Settings.model_fields}
        added = [_parameter(name, field) for name, field in fields.items()]
        command.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in [*own, *added]}
        return command

    return decorate


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    dashed = "--" + name.replace("_", "-")
    flag = field.annotation is bool
    option = typer.Option(
        *([dashed, f"--no-{name}"] if flag else [dashed]),
        help=_help(field),
        rich_help_panel=field.title,
        metavar="" if flag else _metavar(field),
        show_default=False,
    )
    kind: Any = Annotated[bool | None, option] if flag else Annotated[str | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _metavar(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return "|".join(get_args(field.annotation))
    if field.annotation in (int, float):
        return "NUMBER"
    return "LIST" if get_origin(field.annotation) is tuple else "TEXT"


def _help(field: FieldInfo) -> str:
    """The description with the default as one would type it."""
    default = field.default
    if isinstance(default, bool) or not isinstance(default, (str, int, float)) or default == "":
        return str(field.description)
    text = f"{default:g}" if isinstance(default, float) else str(default)
    return f"{field.description} [cyan]({text})[/cyan]"
