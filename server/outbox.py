"""What one tick brings to one group of connections, and who must not get which part of it.

Nearly always everybody gets the same: one batch, encoded once. A part that somebody must not get (their own typing,
their own message with ``echo: false``) makes a second batch for that connection alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

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


class Gathered:
    """What several channels bring in one tick, so that each connection is written to once."""

    __slots__ = ("_batches",)

    def __init__(self) -> None:
        self._batches: dict[Connection, Batch | list[Batch]] = {}
        """Nearly always one: a list only for who gets more."""

    def add(self, batch: Batch, own: Mapping[Connection, Sequence[Prepared]], members: AbstractSet[Connection]) -> None:
        """The batch to the members, except that those in ``own`` get that in its place."""
        batches = self._batches
        for connection in members:
            more = batch
            if connection in own:
                if not own[connection]:
                    continue
                more = Batch(own[connection])
            before = batches.get(connection)
            if before is None:
                batches[connection] = more
            elif isinstance(before, list):
                before.append(more)
            else:
                batches[connection] = [before, more]

    def batches(self) -> Iterator[tuple[Connection, Batch]]:
        for connection, found in self._batches.items():
            yield connection, Batch.joined(found) if isinstance(found, list) else found
