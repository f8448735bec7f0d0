"""What one tick brings to one group of connections, and who must not get which part of it.

Nearly always everybody gets the same: one batch, encoded once. A part that somebody must not get (their own typing,
their own message with ``echo: false``) makes a second batch for that connection alone.
"""

from __future__ import annotations

from collections.abc import Collection

from server.connection import Connection
from server.frames import Batch, Prepared


class Outbox:
    __slots__ = ("_except", "_parts")

    def __init__(self) -> None:
        self._parts: list[Prepared] = []
        self._except: dict[Connection, dict[int, Prepared | None]] = {}

    def add(self, part: Prepared, but: Collection[Connection] = (), instead: Prepared | None = None) -> None:
        """``but`` get ``instead`` of it, or nothing."""
        for connection in but:
            self._except.setdefault(connection, {})[len(self._parts)] = instead
        self._parts.append(part)

    def __len__(self) -> int:
        return len(self._parts)

    def shared(self) -> Batch:
        """What everybody gets who is not in :meth:`own`."""
        return Batch(self._parts)

    def own(self) -> dict[Connection, list[Prepared]]:
        """What those get for whom something was left out or replaced; possibly nothing."""
        if not self._except:
            return {}
        return {
            connection: [
                kept for index, part in enumerate(self._parts) if (kept := replaced.get(index, part)) is not None
            ]
            for connection, replaced in self._except.items()
        }
