"""A short-lived stand-in for an API key, for a browser's WebSocket, which cannot send a key in a header.

``<name>.<expiry>.<nonce>.<mac>``: signed with the key's own secret, so every node that has the key knows its tickets,
and they end with it. It lets watch (``read``), and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Final

from server.api.keys import ApiKey

VALID_S: Final = 30
"""From the page's request to its handshake, which follows at once."""
_PURPOSE: Final = b"roomcast status ticket\0"


def issue(key: ApiKey, now_s: float) -> str:
    """``now_s`` is the time of day: another node's clock decides whether it is still good."""
    body = f"{key.name}.{int(now_s) + VALID_S}.{secrets.token_hex(8)}"
    return f"{body}.{_mac(key, body)}"


def check(ticket: str, keys: Iterable[ApiKey], now_s: float) -> str | None:
    """The name of the key behind it, or None: not one of ours, or too old."""
    body, _, mac = ticket.rpartition(".")
    parts = body.rsplit(".", 2)
    if len(parts) != 3 or not parts[1].isdecimal() or not mac.isascii():
        return None
    name, expiry, _nonce = parts
    found = False
    for key in keys:
        if key.name == name and key.allows("read"):
            found |= hmac.compare_digest(_mac(key, body), mac)
    return name if found and now_s <= int(expiry[:12]) <= now_s + 10 * VALID_S else None


def _mac(key: ApiKey, body: str) -> str:
    return hmac.digest(key.secret.get_secret_value().encode(), _PURPOSE + body.encode(), hashlib.sha256).hex()
