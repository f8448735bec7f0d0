"""Whom a node lets in, per endpoint: the Origin first, then the credentials, then the revocations."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Literal

from starlette.middleware.sessions import SessionMiddleware

from server.accepting import PLACE, Place, address_of
from server.auth import Authenticator, Credentials, NoCredentials, Outdated, Refused, credentials
from server.denial import Denied
from server.identity import ANONYMOUS, Identity
from server.origin import origin_is_allowed
from server.revocation import Revocations
from server.suspects import Suspects

logger = logging.getLogger("server.admission")

Scope = MutableMapping[str, Any]

Demand = Literal["user", "required", "optional", "lenient"]
"""user: nobody without one. required: credentials or 4001. optional: none is fine, bad ones are not. lenient: what is
not understood is ignored, because the application has its own (a raw endpoint's ``?token=`` need not be ours)."""


class ForeignOrigin(Denied):
    def __init__(self) -> None:
        super().__init__(403, "This Origin may not connect here: add it to ROOMCAST_ORIGINS.\n", "origin")


class Admission:
    def __init__(
        self,
        authenticator: Authenticator,
        revocations: Revocations,
        *,
        origins: Sequence[str],
        dev: bool,
        failed_auth_per_min: float,
        session_secret: str | None = None,
        session_cookie: str = "session",
    ) -> None:
        self._authenticator = authenticator
        self._revocations = revocations
        self._origins = origins
        self._dev = dev
        self._suspects = Suspects(failed_auth_per_min)
        self._sessions: SessionMiddleware | None = None
        if session_secret is not None:
            self._sessions = SessionMiddleware(_nothing, session_secret, session_cookie=session_cookie)

    async def admit(
        self, scope: Scope, *, demand: Demand = "required", origins: Sequence[str] | None = None
    ) -> tuple[Identity, Credentials]:
        """Raises :class:`Denied` and :class:`Refused`. ``origins`` are one endpoint's own, in place of the node's.
        Fills ``scope["session"]`` where the node knows the cookie's key, and empties it where no Origin came.
        """
        given = await self._given(scope)
        origin, host = given.headers.get("origin"), given.headers.get("host")
        if not origin_is_allowed(origin, host, self._origins if origins is None else origins, self._dev):
            logger.info("refused the origin %r", origin)
            raise ForeignOrigin
        try:
            if self._suspects.anybody:
                async with self._suspects.checking(address_of(scope)):
                    identity = await self._authenticator.identify(given)
            else:
                identity = await self._authenticator.identify(given)
            if self._revocations.refuses(identity, given.query.get("session")):
                raise Outdated("revoked by an operator: sign in again")
            if demand == "user" and identity.user is None:
                raise NoCredentials("a user is needed here")
        except NoCredentials:
            if demand in ("user", "required"):
                raise
            identity = ANONYMOUS
        except Refused as refused:
            if demand != "lenient":
                if refused.guessed and given.anything:
                    self._suspects.failed(address_of(scope), given.token)
                raise
            identity = ANONYMOUS
        place: Place | None = scope.get(PLACE)
        if place is not None and identity.user is not None:
            place.claim(identity.user)
        return identity, given

    async def renew(self, token: str, by: str) -> Identity:
        """Who a fresh token names. ``by`` names whoever brings it on an open connection. Raises :class:`Refused`, and
        :class:`Denied`, without a look at it, to who has brought too many bad ones."""
        self._suspects.renewing(by)
        try:
            return await self._authenticator.identify_token(token)
        except Refused as refused:
            if refused.guessed:
                self._suspects.renewed_badly(by)
            raise

    async def _given(self, scope: Scope) -> Credentials:
        if self._sessions is not None and "session" not in scope:
            # Starlette's own reads the cookie into the scope; what it would wrap around `send` is for HTTP only, and
            # unwrapped the fast lane can hand the connection off.
            await self._sessions(scope, _never, _never)
        given = credentials(scope)
        if "session" in scope and "origin" not in given.headers:
            scope["session"] = {}
        return given


async def _nothing(scope: Mapping[str, Any], receive: object, send: object) -> None:
    """The application inside the session middleware."""


async def _never(*_: object) -> Any:
    raise AssertionError("nothing is received or sent while a cookie is read")
