"""What is registered for one path with ``on``, ``on_connect`` and ``on_disconnect``: a protocol endpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from server.handlers.binding import BadParameter, Binder
from server.handlers.connection import JSON_SUBPROTOCOL, WebSocket
from server.handlers.lifecycle import Options, converse
from server.handlers.threads import call

F = TypeVar("F", bound=Callable[..., Any])
Step = Literal["connect", "message", "disconnect"]
_GIVEN: dict[Step, int] = {"connect": 1, "message": 2}


class _Callback(NamedTuple):
    function: Callable[..., Any]
    given: int
    """Leading arguments that the step has for it; the others are bound."""
    binder: Binder


class PathHandlers:
    def __init__(self) -> None:
        self._steps: dict[Step, list[_Callback]] = {"connect": [], "message": [], "disconnect": []}
        self._auth: bool | None = None
        self._origins: Sequence[str] | None = None

    def restrict(self, auth: bool | None, origins: Sequence[str] | None) -> None:
        """What one registration of the path says holds for all of them."""
        if auth is not None:
            if self._auth not in (None, auth):
                raise ValueError("this path has been registered with another auth before")
            self._auth = auth
        self._origins = origins if origins is not None else self._origins

    def decorator(self, step: Step) -> Callable[[F], F]:
        def decorate(function: F) -> F:
            given = _given(function, step)
            self._steps[step].append(_Callback(function, given, Binder(function, given)))
            return function

        return decorate

    @property
    def options(self) -> Options:
        return Options(
            protocol=True, takes_messages=bool(self._steps["message"]), auth=self._auth, origins=self._origins
        )

    async def session(self, websocket: WebSocket) -> None:
        try:
            bound = {
                step: [
                    (each, each.binder.arguments(websocket.path_params, websocket.query_params)) for each in callbacks
                ]
                for step, callbacks in self._steps.items()
            }
        except BadParameter as error:
            await websocket.reject(400, f"{error}\n")
            return

        async def run(step: Step, *args: Any) -> None:
            for callback, arguments in bound[step]:
                await call(callback.function, *args[: callback.given], **arguments)

        offered = websocket.scope.get("subprotocols") or ()
        await websocket.accept(JSON_SUBPROTOCOL if JSON_SUBPROTOCOL in offered else None)
        await converse(
            websocket,
            lambda ws: run("connect", ws),
            lambda ws, message: run("message", ws, message),
            lambda ws, code: run("disconnect", ws, code),
        )


def _given(function: Callable[..., Any], step: Step) -> int:
    """``on_disconnect`` may leave out the close code: a second parameter is the code if its name says so."""
    if step != "disconnect":
        return _GIVEN[step]
    names = [p.name for p in inspect.signature(function).parameters.values()]
    return 2 if len(names) > 1 and names[1] in ("code", "close_code") else 1
