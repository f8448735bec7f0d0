"""Who a connection is. The one place that decides it, before the hub sees the connection.

In order: the application's own ``authenticate``; in dev mode ``?user=``; else a JWT signed with the node's secret, from
``Authorization: Bearer``, ``?token=`` or the subprotocol ``roomcast.token.<JWT>``.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import jwt
import orjson

from server import protocol

TOKEN_SUBPROTOCOL = "roomcast.token."
LEEWAY_S = 30.0
"""Clocks of issuers differ from ours by this much at most."""


class Refused(Exception):
    """No or bad credentials: the connection is accepted and closed with 4001, so that a browser can see why."""


class Identity(NamedTuple):
    user: str | None
    """The user id as JSON text; None is anonymous."""
    expires_at: float | None = None
    """Unix time after which the connection is closed, or None."""


ANONYMOUS = Identity(None)

Authenticate = Callable[["Credentials"], "Identity | Awaitable[Identity | None] | None"]
"""An application's own: an :class:`Identity` (``ANONYMOUS`` lets somebody in without one), or None to refuse."""


class Credentials(NamedTuple):
    """What a handshake brings."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    subprotocols: tuple[str, ...]
    cookies_count: bool
    """False where no Origin came: a cookie then authenticates nobody."""

    @property
    def token(self) -> str | None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
        for offered in self.subprotocols:
            if offered.startswith(TOKEN_SUBPROTOCOL):
                return offered.removeprefix(TOKEN_SUBPROTOCOL)
        return self.query.get("token")


def credentials(scope: Mapping[str, Any]) -> Credentials:
    """Read the scope of an ASGI WebSocket connection. Of a repeated query parameter the last one counts."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        headers[name.decode("latin-1")] = value.decode("latin-1")
    query_string = scope["query_string"]
    query = {}
    if query_string:
        query = {name: values[-1] for name, values in parse_qs(query_string.decode("latin-1")).items()}
    return Credentials(headers, query, tuple(scope.get("subprotocols") or ()), "origin" in headers)


def user_text(user: object) -> str:
    """A user id as JSON text: 42 and "42" are two users. ValueError for what is not a user id."""
    if isinstance(user, bool) or not protocol.user_id_is_valid(user):
        raise ValueError("a user id is an integer within 2^53 or 1-128 characters of A-Z a-z 0-9 _ . : @ / - | +")
    return orjson.dumps(user).decode()


class Authenticator:
    def __init__(self, *, dev: bool, secret: str | None, authenticate: Authenticate | None = None) -> None:
        self.dev = dev
        self.secret = secret
        self.authenticate = authenticate

    @property
    def configured(self) -> bool:
        """Whether anybody at all could get in."""
        return self.dev or self.secret is not None or self.authenticate is not None

    async def identify(self, given: Credentials) -> Identity:
        """Raises :class:`Refused`."""
        if self.authenticate is not None:
            answer = self.authenticate(given)
            identity = await answer if inspect.isawaitable(answer) else answer
            if identity is not None:
                return identity
            raise Refused("the application refused these credentials")
        token = given.token
        if token is not None and self.secret is not None:
            return self.verify(token)
        if self.dev:
            return self._dev_user(given.query.get("user"))
        raise Refused("a token is needed: ?token=, Authorization: Bearer or the subprotocol roomcast.token.<JWT>")

    def _dev_user(self, user: str | None) -> Identity:
        if user is None:
            return ANONYMOUS
        try:
            return Identity(user_text(protocol.parse_user_id(user)))
        except ValueError as error:
            raise Refused(str(error)) from error

    def verify(self, token: str) -> Identity:
        """Check a JWT (HS256, ``exp`` required). Raises :class:`Refused`."""
        if len(token) > 8192:
            raise Refused("the token is too long")
        try:
            # PyJWT refuses an integer `sub`; ours may be one, so it is checked below instead.
            claims = jwt.decode(
                token,
                self.secret or "",
                algorithms=["HS256"],
                leeway=LEEWAY_S,
                options={"require": ["exp"], "verify_sub": False},
            )
        except jwt.ExpiredSignatureError as error:
            raise Refused("the token has expired: get a new one") from error
        except jwt.InvalidTokenError as error:
            raise Refused("the token is not valid") from error
        try:
            return Identity(user_text(claims.get("user_id", claims.get("sub"))), float(claims["exp"]))
        except (ValueError, TypeError) as error:
            raise Refused("the token names no user: set the claim user_id or sub") from error
