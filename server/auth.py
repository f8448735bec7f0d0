"""Who a connection is. The one place that decides it, before the hub sees the connection.

In order: the application's own ``authenticate``; a JWT from ``Authorization: Bearer``, the subprotocol
``roomcast.token.<JWT>`` or ``?token=``; in dev mode ``?user=``; the session cookie of the web application. Whoever
brings a bad token is refused, whatever else they bring.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

import jwt

from server import closing, protocol
from server.identity import ANONYMOUS, Identity, User, grants_of, user_text
from server.jwks import Key, RemoteKeys

TOKEN_SUBPROTOCOL = "roomcast.token."  # noqa: S105  # the name of a subprotocol, not a token
MAX_TOKEN_CHARS = 8192
LEEWAY_S = 30.0
"""Clocks of issuers differ from ours by this much at most."""


class Refused(Exception):
    """No or bad credentials: the connection is accepted and closed with 4001, so that a browser can see why."""

    code = closing.UNAUTHENTICATED
    reason = "credentials"
    """One of a few fixed words, for the metrics."""
    guessed = True
    """Whether it may have been a guess: those are counted (server/suspects.py)."""
    retry_after_s = 0.0


class NoCredentials(Refused):
    """Nothing was brought at all."""

    reason = "no_credentials"
    guessed = False


class Outdated(Refused):
    """They were good once: expired, or revoked."""

    reason = "outdated"
    guessed = False


class TooManyConnections(Refused):
    """Good credentials, of a user who has enough connections or opens them too often."""

    code = closing.TOO_MANY_CONNECTIONS
    guessed = False

    def __init__(self, text: str, reason: str, retry_after_s: float) -> None:
        super().__init__(text)
        self.reason = reason
        self.retry_after_s = retry_after_s


Authenticate = Callable[["Credentials"], Any]
"""An application's own, sync or async. Gives None to refuse, ``ANONYMOUS`` to let somebody in without a user, a user id
(integer or text), an object with an ``id`` (it becomes ``conn.user``), or a whole :class:`Identity`."""
LoadUser = Callable[[Any], Any]
"""Takes a user id and gives what handlers see as ``conn.user``; None refuses."""
Call = Callable[..., Awaitable[Any]]
"""Calls an application's function, sync ones in a thread."""


class Credentials(NamedTuple):
    """What a handshake brings."""

    headers: Mapping[str, str]
    """Names in lower case."""
    query: Mapping[str, str]
    subprotocols: tuple[str, ...] = ()
    session: Mapping[str, Any] = {}
    """The web application's session; empty where no Origin came: a cookie then authenticates nobody."""

    @property
    def token(self) -> str | None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
        for offered in self.subprotocols:
            if offered.startswith(TOKEN_SUBPROTOCOL):
                return offered.removeprefix(TOKEN_SUBPROTOCOL)
        return self.query.get("token")

    @property
    def anything(self) -> bool:
        """Whether there is something that may be a credential, known to us or to the application."""
        return "authorization" in self.headers or bool(self.query.keys() - {"session"}) or self.token is not None


def credentials(scope: Mapping[str, Any]) -> Credentials:
    """Read the scope of an ASGI WebSocket connection. Of a repeated query parameter the last one counts. Repeated
    headers are one list (RFC 9110 §5.3), so two Origins are none that is allowed, and two tokens none that is good."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name in headers:
            value = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{value}"
        headers[name] = value
    query_string = scope["query_string"]
    query = {}
    for pair in query_string.decode("latin-1").split("&"):
        name, _, value = pair.partition("=")
        if value:
            query[unquote_plus(name)] = unquote_plus(value)
    session = scope.get("session") or {} if "origin" in headers else {}
    return Credentials(headers, query, tuple(scope.get("subprotocols") or ()), session)


class Authenticator:
    def __init__(
        self,
        *,
        dev: bool,
        secret: str | None = None,
        keys: RemoteKeys | None = None,
        audience: str | None = None,
        issuer: str | None = None,
        leeway_s: float = LEEWAY_S,
        sessions: bool = False,
        authenticate: Authenticate | None = None,
        load_user: LoadUser | None = None,
        call: Call | None = None,
    ) -> None:
        """``call`` is needed with ``authenticate`` or ``load_user``. ``sessions``: a session cookie is read."""
        self._dev = dev
        self._secret = Key("HS256", secret) if secret is not None else None
        self._keys = keys
        self._audience = audience
        self._issuer = issuer
        self._leeway_s = leeway_s
        self._sessions = sessions
        self._authenticate = authenticate
        self._load_user = load_user
        self._call = call

    @property
    def configured(self) -> bool:
        """Whether anybody at all could get in."""
        return self._dev or self._sessions or self._authenticate is not None or self._checks_tokens

    @property
    def _checks_tokens(self) -> bool:
        return self._secret is not None or self._keys is not None

    async def identify(self, given: Credentials) -> Identity:
        """Raises :class:`Refused`."""
        if self._authenticate is not None:
            return await self._ask_application(given)
        token = given.token
        if token is not None and self._checks_tokens:
            return await self._loaded(await self.verify(token))
        if self._dev and "user" in given.query:
            return await self._loaded(_identity_of(protocol.parse_user_id, given.query["user"]))
        if given.session.get("user_id") is not None:
            return await self._loaded(_identity_of(_as_is, given.session["user_id"]))
        if self._dev:
            return ANONYMOUS
        raise NoCredentials("a token is needed: ?token=, Authorization: Bearer or the subprotocol roomcast.token.<JWT>")

    async def identify_token(self, token: str) -> Identity:
        """Of a connection that brings a fresh one. Raises :class:`Refused`."""
        return await self.identify(Credentials({"authorization": f"Bearer {token}"}, {"token": token}))

    async def _ask_application(self, given: Credentials) -> Identity:
        assert self._call is not None
        answer = await self._call(self._authenticate, given)
        if answer is None or answer is False:
            raise Refused("the application refused these credentials")
        if isinstance(answer, Identity):
            return answer if answer.user is None or answer.principal is not None else _with_user(answer)
        if isinstance(answer, (int, str)):
            return await self._loaded(_identity_of(_as_is, answer))
        return _identity_of(_as_is, getattr(answer, "id", None))._replace(principal=answer)

    async def _loaded(self, identity: Identity) -> Identity:
        if self._load_user is None or identity.principal is None:
            return identity
        assert self._call is not None
        principal = await self._call(self._load_user, identity.principal.id)
        if principal is None:
            raise Refused("the application knows no such user")
        return identity._replace(principal=principal)

    async def verify(self, token: str) -> Identity:
        """Check a JWT; ``exp`` is required, ``aud`` and ``iss`` where they are set. Raises :class:`Refused`."""
        if len(token) > MAX_TOKEN_CHARS:
            raise Refused(f"the token is longer than {MAX_TOKEN_CHARS} characters")
        try:
            key = await self._key_of(jwt.get_unverified_header(token))
            required = ["exp", *(["aud"] if self._audience else []), *(["iss"] if self._issuer else [])]
            # PyJWT refuses an integer `sub`; ours may be one, so it is checked below instead.
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                leeway=self._leeway_s,
                audience=self._audience,
                issuer=self._issuer,
                options={"require": required, "verify_sub": False, "verify_aud": self._audience is not None},
            )
        except jwt.ExpiredSignatureError as error:
            raise Outdated("the token has expired: get a new one") from error
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise Refused("the token is not valid") from error
        return _identity_of_claims(claims)

    async def _key_of(self, header: Mapping[str, Any]) -> Key:
        """The one key this token may be signed with; its algorithm is the key's, whatever the header says."""
        key_id = header.get("kid")
        if key_id is not None and not isinstance(key_id, str):
            raise Refused("the token is not valid")
        key = self._secret if key_id is None or self._keys is None else None
        if key is None and self._keys is not None:
            key = await self._keys.find(key_id)
        if key is None:
            raise Refused("the token is signed with a key that is not known here")
        return key


def _identity_of_claims(claims: Mapping[str, Any]) -> Identity:
    user = claims.get("user_id", claims.get("sub"))
    issued_at = claims.get("iat")
    try:
        return Identity(
            user=user_text(user),
            expires_at=float(claims["exp"]),
            token_id=str(claims["jti"]) if "jti" in claims else None,
            issued_at=float(issued_at) if issued_at is not None else None,
            grants=grants_of(claims),
            principal=User(user, claims),  # user_text has checked it
        )
    except (ValueError, TypeError, OverflowError) as error:
        reason = "the token names no user: set the claim user_id or sub" if user is None else f"the token: {error}"
        raise Refused(reason) from error


def _identity_of(read: Callable[[Any], Any], given: object) -> Identity:
    try:
        user = read(given)
        return Identity(user_text(user), principal=User(user, {}))
    except ValueError as error:
        raise Refused(str(error)) from error


def _as_is(user: object) -> object:
    return user


def _with_user(identity: Identity) -> Identity:
    assert identity.user is not None
    return identity._replace(principal=User(user_of(identity.user), {}))


def user_of(text: str) -> int | str:
    """The user id that this JSON text stands for."""
    return text[1:-1] if text.startswith('"') else int(text)
