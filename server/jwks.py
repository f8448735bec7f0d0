"""The keys that sign tokens: a secret, a file or a URL with a JSON Web Key Set (RFC 7517), each key for one algorithm.

A key says which algorithm it is for, a token never does (RFC 8725 §3.1): an RSA public key can check RS256 and nothing
else, so it cannot be used as the secret of an HS256 token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import jwt
import orjson

logger = logging.getLogger("server.jwks")

MAX_BYTES: Final = 256 * 1024
TIMEOUT_S: Final = 5.0
REFRESH_S: Final = 600.0
"""A set from a URL is fetched again when a token comes and it is older than this."""
RETRY_S: Final = 10.0
"""At most once in this time is a set fetched for a key that is not in it, or after a failure."""
ALGORITHMS: Final = frozenset(
    ("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA")
)
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}


class Key(NamedTuple):
    algorithm: str
    key: Any
    """As PyJWT wants it."""


class KeySet(NamedTuple):
    by_id: Mapping[str, Key]
    nameless: tuple[Key, ...]

    def find(self, key_id: str | None) -> Key | None:
        """The key of that id. A token that names none is for the only key there is."""
        if key_id is not None:
            return self.by_id.get(key_id)
        keys = (*self.by_id.values(), *self.nameless)
        return keys[0] if len(keys) == 1 else None


def parse(text: bytes) -> KeySet:
    """Read a JWKS. Keys for encryption and of kinds that sign nothing here are passed over. ValueError if it is no JWKS
    or no key is left."""
    try:
        entries = orjson.loads(text)["keys"]
        keys = [entry for entry in entries if isinstance(entry, dict) and entry.get("use", "sig") == "sig"]
    except (ValueError, KeyError, TypeError):
        raise ValueError('a JWKS is {"keys": […]}') from None
    by_id: dict[str, Key] = {}
    nameless: list[Key] = []
    for entry in keys:
        key = _key(entry)
        if key is None:
            continue
        if isinstance(entry.get("kid"), str):
            by_id[entry["kid"]] = key
        else:
            nameless.append(key)
    if not by_id and not nameless:
        raise ValueError(f"the JWKS has no key that signs with one of {', '.join(sorted(ALGORITHMS))}")
    return KeySet(by_id, tuple(nameless))


def _key(entry: Mapping[str, Any]) -> Key | None:
    implied = {"RSA": "RS256", "oct": "HS256", "OKP": "EdDSA", "EC": _CURVES.get(str(entry.get("crv")))}
    algorithm = entry.get("alg") or implied.get(str(entry.get("kty")))
    if algorithm not in ALGORITHMS or (entry.get("kty") == "oct") != str(algorithm).startswith("HS"):
        return None
    try:
        return Key(str(algorithm), jwt.PyJWK(dict(entry), algorithm=str(algorithm)).key)
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        logger.warning("passed over a key of the JWKS (kid %r): %s", entry.get("kid"), error)
        return None


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Keys come from the address that was configured, or not at all."""


def fetch(address: str) -> bytes:
    """Read the file or URL. Blocks. Raises OSError."""
    if "://" not in address:
        return Path(address).read_bytes()
    headers = {"accept": "application/json", "user-agent": "roomcast"}
    request = Request(address, headers=headers)  # noqa: S310  # the operator's ROOMCAST_JWKS, never a client's word
    with build_opener(_NoRedirects).open(request, timeout=TIMEOUT_S) as response:
        body: bytes = response.read(MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise URLError(f"more than {MAX_BYTES} bytes")
    return body


def check_address(address: str) -> None:
    """ValueError for a URL that somebody on the way could answer."""
    parts = urlsplit(address)
    if "://" in address and parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError("a JWKS is read from a file, or over https: anybody on the way could replace the keys")


class RemoteKeys:
    """A key set that is fetched when it is first needed, and again as it gets old or a token names a new key. While the
    source is away, the keys known last count on."""

    def __init__(
        self,
        address: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        refresh_s: float = REFRESH_S,
        retry_s: float = RETRY_S,
    ) -> None:
        check_address(address)
        self.address = address
        self._clock = clock
        # A file may be looked at for every new key at once: it is near, and whoever rotates it does so in place.
        self._retry_s = retry_s if "://" in address else 0.0
        self._refresh_s = refresh_s if "://" in address else 1.0
        self._keys: KeySet | None = None
        self._asked = -float("inf")
        self._lock: asyncio.Lock | None = None

    async def find(self, key_id: str | None) -> Key | None:
        key = self._keys.find(key_id) if self._keys is not None else None
        age = self._clock() - self._asked
        if age >= self._refresh_s or (key is None and age >= self._retry_s):
            await self._fetch()
            key = self._keys.find(key_id) if self._keys is not None else None
        return key

    async def _fetch(self) -> None:
        if self._lock is None:
            self._lock = asyncio.Lock()
        asked = self._asked
        async with self._lock:
            if self._asked != asked:
                return  # somebody else has just done it
            self._asked = self._clock()
            try:
                self._keys = parse(await asyncio.to_thread(fetch, self.address))
            except (OSError, ValueError) as error:
                logger.warning("cannot read the keys at %s: %s", self.address, error)
