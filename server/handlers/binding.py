"""Parameters of the path and the query as typed keyword arguments of a handler.

What a function takes beside its first arguments (the connection, the message …) is looked up by name, first in the
path, then in the query, and converted to the annotation's type by pydantic. A connection that brings something else
never reaches the handler: it is refused with HTTP 400 and the reason.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

_REQUIRED = inspect.Parameter.empty


class BadParameter(Exception):
    """One line: which parameter, what is wrong with it."""


class _Parameter(NamedTuple):
    name: str
    default: Any
    adapter: TypeAdapter[Any] | None
    many: bool


class Binder:
    """Made once per handler, at registration."""

    def __init__(self, function: Callable[..., Any], given: int) -> None:
        """``given`` positional arguments come from the caller. Raises TypeError for a function that takes fewer than
        one of them."""
        try:
            hints = typing.get_type_hints(function)
        except Exception:  # names that exist only for type checkers
            hints = {}
        parameters = list(inspect.signature(function).parameters.values())
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if not positional and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            raise TypeError(f"{function!r} takes no connection: give it a first parameter for it")
        own = [p for p in positional[given:]] + [p for p in parameters if p.kind is p.KEYWORD_ONLY]
        self._parameters = [_parameter(p, hints.get(p.name)) for p in own]
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)

    def arguments(self, path: Mapping[str, Any], query: Any) -> dict[str, Any]:
        """``query`` is a Starlette QueryParams. Raises :class:`BadParameter`."""
        bound: dict[str, Any] = dict(path) if self._takes_all else {}
        for parameter in self._parameters:
            name = parameter.name
            if name in path:
                value = path[name]
            elif name in query:
                value = query.getlist(name) if parameter.many else query[name]
            elif parameter.default is not _REQUIRED:
                continue
            else:
                raise BadParameter(f"the query parameter {name!r} is missing")
            if parameter.adapter is not None:
                try:
                    value = parameter.adapter.validate_python(value)
                except ValidationError as error:
                    raise BadParameter(f"the parameter {name!r}: {error.errors()[0]['msg']}") from None
            bound[name] = value
        return bound


def _parameter(parameter: inspect.Parameter, hint: Any) -> _Parameter:
    many = typing.get_origin(hint) in (list, tuple, set, frozenset)
    adapter = TypeAdapter(hint) if hint is not None and hint is not Any else None
    return _Parameter(parameter.name, parameter.default, adapter, many)
