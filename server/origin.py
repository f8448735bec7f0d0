"""Whether a browser page may open a WebSocket here (cross-site WebSocket hijacking, RFC 6455 §10.2). Pure.

Browsers send cookies along with a handshake from any page, so the Origin is what tells a page of ours from another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_LOCAL = ("localhost", "127.0.0.1", "::1")

_Origin = tuple[str, str, int | None]


def _split(origin: str) -> _Origin | None:
    """(scheme, host, port), or None for what is not an origin (``null``, a path, credentials)."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    if parts.path or parts.query or parts.fragment:
        return None
    return parts.scheme, parts.hostname.lower(), port or _DEFAULT_PORTS[parts.scheme]


def _matches(origin: _Origin, allowed: str) -> bool:
    """``allowed`` is ``https://app.example[:port]``, ``https://*.app.example`` (sub-domains, not the domain itself), a
    bare domain (any scheme, its default port; of this machine any port), or ``*``."""
    if allowed == "*":
        return True
    if allowed in _LOCAL:
        return origin[1] == allowed
    if "://" not in allowed:
        allowed = f"{origin[0]}://{allowed}"
    wildcard = "://*." in allowed
    wanted = _split(allowed.replace("://*.", "://", 1) if wildcard else allowed)
    if wanted is None or (origin[0], origin[2]) != (wanted[0], wanted[2]):
        return False
    return origin[1].endswith("." + wanted[1]) if wildcard else origin[1] == wanted[1]


def origin_is_allowed(origin: str | None, host: str | None, allowed: Sequence[str], dev: bool) -> bool:
    """``origin`` None (no such header) is not a browser and is allowed; a cookie then authenticates nobody.

    Else it must name the host that the request's ``Host`` names, or be in ``allowed``, or in dev mode be local.
    """
    if origin is None:
        return True
    parts = _split(origin)
    if parts is None:
        return False
    if host is not None:
        own = _split(f"{parts[0]}://{host}")
        if own == parts:
            return True
    if dev and parts[1] in _LOCAL:
        return True
    return any(_matches(parts, entry) for entry in allowed)
