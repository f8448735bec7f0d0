"""What ``roomcast token`` does: a JWT as this installation's nodes want it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

import jwt

from server import protocol
from server.identity import grants_of
from server.quantities import parse_duration
from server.settings import Settings, SettingsError


def mint(settings: Settings, user: str, ttl: str, grants: Sequence[str], broadcast: bool) -> str:
    """``grants`` are ``pattern=action,action``. Raises SettingsError."""
    if settings.secret is None:
        raise SettingsError("a token is signed with ROOMCAST_SECRET, the one of your nodes: set it")
    now = int(time.time())
    try:
        claims: dict[str, Any] = {
            "user_id": protocol.parse_user_id(user),
            "iat": now,
            "exp": now + round(float(str(parse_duration(ttl)))),
            "jti": secrets.token_urlsafe(12),
        }
        for grant in grants:
            pattern, _, listed = grant.partition("=")
            actions = [action for action in listed.split(",") if action]
            if not actions:
                raise ValueError(f"{grant!r} grants nothing: write pattern=action,action, e.g. 'chat:*=join,publish'")
            claims.setdefault("rooms", {})[pattern] = actions
        if broadcast:
            claims["broadcast"] = True
        grants_of(claims)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if settings.audience is not None:
        claims["aud"] = settings.audience
    if settings.issuer is not None:
        claims["iss"] = settings.issuer
    return jwt.encode(claims, settings.secret.get_secret_value(), algorithm="HS256")
