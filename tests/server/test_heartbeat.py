"""The wheel: everybody has a turn once a round, and a node that was away itself accuses nobody."""

from __future__ import annotations

from server.heartbeat import SLOTS, Heartbeat


class Beaten:
    def __init__(self) -> None:
        self.turns: list[bool] = []

    def beat(self, forgive: bool) -> None:
        self.turns.append(forgive)


def test_every_connection_has_one_turn_a_round() -> None:
    wheel = Heartbeat(ping_s=10.0)
    beaten = []
    for _ in range(SLOTS * 3):
        connection = Beaten()
        wheel.add(connection)
        beaten.append(connection)
        wheel.turn(late=False)
    for connection in beaten:
        connection.turns.clear()
    for _ in range(SLOTS):
        wheel.turn(late=False)
    assert all(len(connection.turns) == 1 for connection in beaten)


def test_a_new_connection_waits_almost_a_whole_round() -> None:
    wheel = Heartbeat(ping_s=10.0)
    connection = Beaten()
    wheel.add(connection)
    for _ in range(SLOTS - 2):
        wheel.turn(late=False)
    assert not connection.turns
    wheel.turn(late=False)
    assert connection.turns == [False]


def test_a_late_turn_forgives_a_whole_round() -> None:
    wheel = Heartbeat(ping_s=10.0)
    beaten = []
    for _ in range(SLOTS):
        connection = Beaten()
        wheel.add(connection)
        beaten.append(connection)
        wheel.turn(late=False)
    for connection in beaten:
        connection.turns.clear()
    wheel.turn(late=True)
    for _ in range(2 * SLOTS - 1):
        wheel.turn(late=False)
    assert all(connection.turns == [True, False] for connection in beaten)


def test_a_discarded_connection_has_no_turn_any_more() -> None:
    wheel = Heartbeat(ping_s=10.0)
    connection = Beaten()
    wheel.discard(connection, wheel.add(connection))
    for _ in range(SLOTS):
        wheel.turn(late=False)
    assert not connection.turns
