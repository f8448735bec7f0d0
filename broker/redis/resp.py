"""How commands are written to Redis (RESP2): an array of bulk strings. Pure.

``hiredis.pack_command`` does this for whole commands. Publishes are sent by the thousand and most of what they say is
the same each time, so theirs is written in pieces of which most are kept ready.
"""

from __future__ import annotations


def bulk(*values: bytes | str | int) -> bytes:
    """Each value as a bulk string, one after the other."""
    written = b""
    for value in values:
        text = value if type(value) is bytes else str(value).encode()
        written += b"$%d\r\n%b\r\n" % (len(text), text)
    return written


def array(count: int) -> bytes:
    """The head of an array of so many bulk strings."""
    return b"*%d\r\n" % count
