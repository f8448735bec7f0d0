"""Rooms the server's application puts this client into, and takes it out of."""

from __future__ import annotations

from typing import Any

from roomcast_client.effects import Done, Ended, Entered, Failed, Send, Tell, TellRoom
from roomcast_client.errors import OutcomeUnknown, Refused, Removed
from roomcast_client.events import Ack, Joined, Message, Position, PutIn, PutOut

from tests.clients.python.frames import (
    NOW,
    connected,
    in_room,
    join,
    joined,
    message,
    offsets,
    reconnected,
    send,
    sent,
    told,
)

PUT = {"op": "broadcast", "type": "joined", "room": "r", "epoch": "e", "offset": 4, "tag": "t4"}
LEFT = {"op": "broadcast", "type": "left", "room": "r"}
AT = Position("e", 4, "t4")


def answer(number: int, **more: Any) -> dict[str, Any]:
    return {"op": "reply", "id": number, "ok": True, "room": "r", "epoch": "e", "offset": 6, "tag": "t6"} | more


def test_put_into_a_room_it_is_live_at_once_and_after_a_reconnect_the_client_joins_by_itself() -> None:
    machine = connected()
    assert machine.received(PUT, NOW, 0) == [Entered("r", AT), Tell(PutIn("r", AT))]
    assert machine.received(message(5), NOW, 0) == [TellRoom("r", Message("r", "e", 5, "t5", 7, 1.5, "x"))]
    assert [frame["op"] for frame in sent(send(machine))] == ["message"]
    machine.received(answer(1), NOW, 0)
    frames = sent(reconnected(machine))
    assert frames == [{"op": "join", "id": 2, "room": "r", "resume": {"epoch": "e", "offset": 5, "tag": "t5"}}]
    effects = machine.received(joined(2, 6, recovered=True, messages=[message(6)]), NOW, 0)
    assert told(effects)[-1] == Joined("r", True, 1, (), None)


def test_put_into_a_room_one_is_in_or_is_joining_the_own_join_says_more() -> None:
    machine = in_room(5)
    assert machine.received(PUT, NOW, 0) == []
    assert offsets(machine.received(message(6), NOW, 0)) == [6]
    joining = connected()
    join(joining)
    assert joining.received(PUT, NOW, 0) == []
    assert joining.received(joined(1, 5), NOW, 0)[-1] == Done(1, Position("e", 5, "t5"))


def test_taken_out_of_a_room_it_ends_and_is_not_joined_again() -> None:
    machine = in_room()
    send(machine, 7)  # its ack may still come
    tell, ended = machine.received(LEFT, NOW, 0)
    assert tell == Tell(PutOut("r"))
    assert isinstance(ended, Ended) and isinstance(ended.error, Removed)
    assert machine.received(message(6), NOW, 0) == []
    assert machine.received(answer(2), NOW, 0) == [Done(7, Ack("e", 6, "t6"))]
    assert sent(reconnected(machine)) == []


def test_taken_out_while_joining_what_the_server_says_to_a_later_join_counts() -> None:
    machine = connected()
    join(machine)
    assert machine.received(LEFT, NOW, 0) == [Send({"op": "join", "id": 2, "room": "r"})]
    assert machine.received(joined(1, 5), NOW, 0) == []
    assert machine.received(joined(2, 5), NOW, 0)[-1] == Done(1, Position("e", 5, "t5"))


def test_taken_out_of_a_room_one_is_not_in_is_nothing() -> None:
    assert connected().received(LEFT, NOW, 0) == []


def test_what_may_be_in_the_log_when_its_room_ends_is_not_said_to_be_refused() -> None:
    machine = in_room()
    send(machine, 7)
    reconnected(machine)  # sends the join as 3
    send(machine, 8)
    effects = machine.received({"op": "reply", "id": 3, "ok": False, "code": "forbidden", "message": "no"}, NOW, 0)
    failed = {effect.ticket: type(effect.error) for effect in effects if isinstance(effect, Failed)}
    assert failed == {7: OutcomeUnknown, 8: Refused}
