"""What an application adds to a node: its endpoints, and its say in who comes and what they may do. Only collects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from server.auth import Authenticate, LoadUser
from server.handlers.lifecycle import GRACE_S
from server.handlers.routing import WebSocketRouter, converted
from server.handlers.yaml_config import read_yaml

F = TypeVar("F", bound=Callable[..., Any])


class ForRooms(NamedTuple):
    pattern: str
    """``*`` stands for any characters."""
    function: Callable[..., Any]


class Registrations(WebSocketRouter):
    def __init__(
        self,
        *,
        routes: Sequence[BaseRoute] = (),
        middleware: Sequence[Middleware] = (),
        allowed_origins: Sequence[str] = (),
        client_broadcast: bool = False,
        handler_grace_s: float = GRACE_S,
    ) -> None:
        """``routes``: Starlette's own, HTTP and WebSocket. ``middleware``: plain ASGI, around everything.
        ``allowed_origins``: beside those of ROOMCAST_ORIGINS. ``client_broadcast``: clients may use the op
        ``broadcast``. ``handler_grace_s``: how long a handler may go on after its client has gone."""
        super().__init__()
        self.extra_routes = list(routes)
        self.middleware = list(middleware)
        self.allowed_origins = list(allowed_origins)
        self.client_broadcast = client_broadcast
        self.handler_grace_s = handler_grace_s
        self.authenticator: Authenticate | None = None
        self.user_loader: LoadUser | None = None
        self.authorizers: list[ForRooms] = []
        self.message_hooks: list[ForRooms] = []
        self.join_hooks: list[ForRooms] = []
        self.leave_hooks: list[ForRooms] = []
        self.startup: list[Callable[..., Any]] = []
        self.shutdown: list[Callable[..., Any]] = []

    # Identity.

    def authenticate(self, function: F) -> F:
        """``(credentials)`` → None to refuse, ``ANONYMOUS``, a user id, an object with an ``id``, or an Identity. It
        replaces tokens, session cookies and ``?user=``."""
        if self.authenticator is not None:
            raise ValueError("there is an @authenticate already: one function decides who somebody is")
        self.authenticator = function
        return function

    def load_user(self, function: F) -> F:
        """``(user_id)`` → what handlers see as ``conn.user``; None refuses. Called once per connection and token."""
        if self.user_loader is not None:
            raise ValueError("there is a @load_user already")
        self.user_loader = function
        return function

    # Rooms.

    @overload
    def room_authorizer(self, pattern: F) -> F: ...
    @overload
    def room_authorizer(self, pattern: str = "*") -> Callable[[F], F]: ...
    def room_authorizer(self, pattern: Any = "*") -> Any:
        """``(conn, room)`` or ``(conn, room, action)`` → whether it may; action is join, publish, history or presence.
        Every authorizer whose pattern matches must agree; without one everybody may. Its failing is a no."""
        return _for_rooms(self.authorizers, pattern)

    @overload
    def on_message(self, pattern: F) -> F: ...
    @overload
    def on_message(self, pattern: str = "*") -> Callable[[F], F]: ...
    def on_message(self, pattern: Any = "*") -> Any:
        """``(conn, room, data)`` before a client's message is published: what it returns, unless None, is published
        instead; raise ``roomcast.Refusal("forbidden", "why")`` to refuse it."""
        return _for_rooms(self.message_hooks, pattern)

    @overload
    def on_join(self, pattern: F) -> F: ...
    @overload
    def on_join(self, pattern: str = "*") -> Callable[[F], F]: ...
    def on_join(self, pattern: Any = "*") -> Any:
        """``(conn, room)`` after a connection has become a member on this node."""
        return _for_rooms(self.join_hooks, pattern)

    @overload
    def on_leave(self, pattern: F) -> F: ...
    @overload
    def on_leave(self, pattern: str = "*") -> Callable[[F], F]: ...
    def on_leave(self, pattern: Any = "*") -> Any:
        """``(conn, room)`` after it has left, been put out or gone away."""
        return _for_rooms(self.leave_hooks, pattern)

    # Life.

    def on_startup(self, function: F) -> F:
        """``()`` once this node can publish, before it serves anybody. An exception ends the start."""
        self.startup.append(function)
        return function

    def on_shutdown(self, function: F) -> F:
        """``()`` after the last connection has gone."""
        self.shutdown.append(function)
        return function

    def add_yaml(self, path: str | Path) -> None:
        """Add the ``url`` entries of a YAML file. Raises :class:`roomcast.YamlError`."""
        self._entries.extend((converted(pattern), session, options) for pattern, session, options in read_yaml(path))


def _for_rooms(into: list[ForRooms], pattern: Any) -> Any:
    """``@hook`` and ``@hook("chat:*")``."""
    if callable(pattern):
        into.append(ForRooms("*", pattern))
        return pattern

    def decorate(function: F) -> F:
        into.append(ForRooms(pattern, function))
        return function

    return decorate
