"""Who guesses credentials: how many bad ones an address may bring, and how many may name one user.

Nobody is locked out. Whoever brings good credentials gets in, also from an address (an office, a mobile network) from
which others guess: a JWT is always checked, because that costs less than the answer. What ends is the comfort: over the
limit a bad token gets 429 before the upgrade in the place of a connection that says 4001, and an application's
``authenticate`` is asked about such an address one handshake at a time, with few waiting.

An expired or revoked token is no guess: its signature was good.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import jwt

from server.buckets import Buckets
from server.denial import Denied

MAX_WAITING: Final = 8
"""Handshakes of one suspected address that wait for the one whose credentials are being checked."""
MAX_SUBJECT_CHARS: Final = 128
TOO_MANY: Final = "Too many bad credentials came from your address or for this user: wait, then bring good ones.\n"

TOO_MANY_RENEWALS: Final = "you brought too many bad tokens: wait, then bring a good one"


class Suspects:
    def __init__(self, per_min: float) -> None:
        """``per_min``: bad credentials that an address, or a user they name, is allowed; as many at once."""
        self._buckets = Buckets(per_min / 60, max(1, round(per_min)))
        self._checks: dict[str, _Checks] = {}

    @property
    def anybody(self) -> bool:
        """Whether there is any reason to suspect somebody."""
        return len(self._buckets) > 0

    @asynccontextmanager
    async def checking(self, address: str | None) -> AsyncIterator[None]:
        """Around the check of credentials. Raises :class:`Denied`."""
        if address is None or not self._buckets.wait_s(_of_address(address), time.monotonic()):
            yield
            return
        checks = self._checks.setdefault(address, _Checks())
        if checks.inside > MAX_WAITING:
            raise self._denied(address, None)
        checks.inside += 1
        try:
            async with checks.lock:
                yield
        finally:
            checks.inside -= 1
            if not checks.inside:
                self._checks.pop(address, None)

    def failed(self, address: str | None, token: str | None) -> None:
        """Bad credentials came. Raises :class:`Denied` if too many did."""
        now_s = time.monotonic()
        subject = subject_of(token)
        waits = [self._buckets.take(key, now_s) for key in _keys(address, subject)]
        if any(waits):
            raise self._denied(address, subject)

    def renewing(self, by: str) -> None:
        """Somebody who is connected brings a token. Raises :class:`Denied` if their bad ones were too many: it is about
        their own connections only that they are not heard, so nobody else can bring that about."""
        wait_s = self._buckets.wait_s(_of_renewals(by), time.monotonic())
        if wait_s:
            raise Denied(429, TOO_MANY_RENEWALS, "guesses", wait_s)

    def renewed_badly(self, by: str) -> None:
        self._buckets.take(_of_renewals(by), time.monotonic())

    def _denied(self, address: str | None, subject: str | None) -> Denied:
        now_s = time.monotonic()
        wait_s = max((self._buckets.wait_s(key, now_s) for key in _keys(address, subject)), default=0.0)
        return Denied(429, TOO_MANY, "guesses", max(1.0, wait_s))


class _Checks:
    """Of one address."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.inside = 0


def subject_of(token: str | None) -> str | None:
    """Whom a token claims to be of, without any proof."""
    if token is None:
        return None
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError):
        return None
    subject = str(claims.get("user_id", claims.get("sub", "")))
    return subject if 0 < len(subject) <= MAX_SUBJECT_CHARS else None


def _of_address(address: str) -> str:
    return f"address {address}"


def _of_renewals(by: str) -> str:
    return f"renewals {by}"


def _keys(address: str | None, subject: str | None) -> list[str]:
    keys = [] if address is None else [_of_address(address)]
    return keys if subject is None else [*keys, f"user {subject}"]
