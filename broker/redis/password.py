"""The password of a server, which may be rotated while nodes run."""

from __future__ import annotations

from pathlib import Path

from broker.base import Unavailable
from broker.redis.address import Address


def password_of(address: Address, password_file: str | None) -> str | None:
    """What the file says now, or else the URL. Raises :class:`Unavailable` for a file that cannot be read."""
    if password_file is None:
        return address.password
    try:
        return Path(password_file).read_text().strip()
    except OSError as error:
        raise Unavailable(f"cannot read the password of Redis: {error}") from error
