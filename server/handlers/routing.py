"""Registration: which handler serves which path. Routers collect; a hub is one, and others can be mounted into it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from starlette.routing import WebSocketRoute

from server.handlers.classes import WebSocketHandler, controller_session
from server.handlers.lifecycle import Endpoint, Options, Session, WsMiddleware
from server.handlers.pathhandlers import PathHandlers
from server.handlers.views import view_options, view_session

F = TypeVar("F", bound=Callable[..., Any])


class WebSocketRouter:
    """Groups endpoints, with middleware of their own; may be mounted into others, any number of times."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._entries: list[tuple[str, Session, Options]] = []
        self._paths: dict[str, PathHandlers] = {}
        self._mounted: list[tuple[str, WebSocketRouter]] = []
        self.ws_middleware: list[WsMiddleware] = []

    # Callbacks per path: protocol endpoints.

    def on(self, path: str, *, auth: bool | None = None, origins: Sequence[str] | None = None) -> Callable[[F], F]:
        """``(conn, message)`` for every message on the path that is no op of docs/protocol.md."""
        return self._path(path, auth, origins).decorator("message")

    def on_connect(
        self, path: str, *, auth: bool | None = None, origins: Sequence[str] | None = None
    ) -> Callable[[F], F]:
        """``(conn)`` once a client is connected; it may send at once."""
        return self._path(path, auth, origins).decorator("connect")

    def on_disconnect(
        self, path: str, *, auth: bool | None = None, origins: Sequence[str] | None = None
    ) -> Callable[[F], F]:
        """``(conn)`` or ``(conn, close_code)`` when a client has gone."""
        return self._path(path, auth, origins).decorator("disconnect")

    def _path(self, path: str, auth: bool | None, origins: Sequence[str] | None) -> PathHandlers:
        path = converted(path)
        if path == "/ws":
            raise ValueError(
                "/ws is the node's own endpoint: choose another path, or use @hub.on_message for its rooms"
            )
        handlers = self._paths.setdefault(path, PathHandlers())
        handlers.restrict(auth, origins)
        return handlers

    # Views, classes, controllers: raw endpoints.

    def websocket_route(self, path: str, **options: Any) -> Callable[[F], F]:
        """Register a view function or a handler class. Options: see :func:`server.handlers.views.view_options`."""

        def decorate(view: F) -> F:
            self.add_ws_route(view, path, **options)
            return view

        return decorate

    ws_route = websocket_route

    def add_ws_route(self, handler: Any, path: Any = None, **options: Any) -> None:
        """The same as a call, in either order (handler, path) or (path, handler). Without a path it is
        ``handler.path``."""
        if isinstance(handler, str):
            handler, path = path, handler
        path = path or getattr(handler, "path", None)
        if not isinstance(path, str):
            raise ValueError(f"where shall {handler!r} be? Give a path, or the class an attribute `path`")
        session, given = _session_of(handler, options)
        self._entries.append((converted(path), session, given))

    # Composition.

    def add_ws_middleware(self, middleware: Any, **arguments: Any) -> None:
        """``async def (websocket, call_next)``, an object with such a ``__call__``, or its class (made with these
        arguments). The first one added is the outermost."""
        layer = middleware(**arguments) if inspect.isclass(middleware) else middleware
        if not callable(layer):
            raise TypeError(f"{middleware!r} cannot be called with (websocket, call_next)")
        self.ws_middleware.append(layer)

    def mount_ws_router(self, router: WebSocketRouter, prefix: str = "") -> None:
        """Routes added to it later count, too."""
        if router is self:
            raise ValueError("a router cannot be mounted into itself")
        self._mounted.append((prefix, router))

    include_ws_router = mount_ws_router

    def routes(self, prefix: str = "", outer: Sequence[WsMiddleware] = ()) -> Iterator[WebSocketRoute]:
        """All of it as Starlette routes, most particular first as far as the order of registration says so."""
        prefix += self.prefix
        for path, handlers in self._paths.items():
            yield WebSocketRoute(prefix + path, Endpoint(handlers.session, handlers.options, outer))
        for path, session, options in self._entries:
            yield WebSocketRoute(prefix + path, Endpoint(session, options, outer))
        for mount_prefix, router in self._mounted:
            yield from router.routes(prefix + converted(mount_prefix), [*outer, *router.ws_middleware])


def converted(path: str) -> str:
    """Starlette's spelling of a path: ``[room]`` is ``{room}``, ``[id:int]`` is ``{id:int}``."""
    return re.sub(r"\[(\w+(?::\w+)?)\]", r"{\1}", path)


def _session_of(handler: Any, options: dict[str, Any]) -> tuple[Session, Options]:
    if inspect.isclass(handler):
        handler = handler()
    if isinstance(handler, WebSocketHandler):
        if options:
            raise TypeError(f"options of {type(handler).__name__} are its attributes: receive_timeout, auth, origins")
        return handler.session, handler.options
    if hasattr(handler, "on_connect") and hasattr(handler, "on_receive"):
        return controller_session(handler), view_options(auto_accept=False, **options)
    given = view_options(**options)
    return view_session(handler, auto_accept=given.auto_accepted), given
