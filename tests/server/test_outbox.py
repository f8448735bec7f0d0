"""What a tick brings, to whom: gathered for each connection in its order."""

from __future__ import annotations

from server.connection import Connection
from server.frames import Batch, Prepared
from server.outbox import Gathered


def parts(*names: str) -> list[Prepared]:
    return [Prepared(name.encode()) for name in names]


def test_each_connection_gets_one_batch_of_all_it_is_due_in_order() -> None:
    one, two, three, nobody = (Connection() for _ in range(4))
    gathered = Gathered()
    a, b, c = Batch(parts("a")), Batch(parts("b", "b2")), Batch(parts("c"))
    gathered.add(a, {}, {one, two})
    gathered.add(b, {two: parts("own"), three: [], nobody: parts("not a member")}, {one, two, three})
    gathered.add(c, {}, {one})
    got = {connection: batch for connection, batch in gathered.batches()}
    told = {connection: [part.payload for part in batch.parts] for connection, batch in got.items()}
    assert told == {one: [b"a", b"b", b"b2", b"c"], two: [b"a", b"own"]}
    assert a.parts[0] is got[one].parts[0], "what is shared is encoded once"


def test_one_batch_is_given_as_it_is() -> None:
    connection, batch = Connection(), Batch(parts("a"))
    gathered = Gathered()
    gathered.add(batch, {}, {connection})
    assert [found for _, found in gathered.batches()] == [batch]
