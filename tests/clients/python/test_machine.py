"""What the client says on the wire and what it makes of what comes back, frame by frame (docs/protocol.md)."""

from __future__ import annotations

from typing import Any

import pytest
from roomcast_client.effects import Connect, Done, Drop, Effect, Ended, Failed, NewToken, Send, Stop, Tell, TellRoom
from roomcast_client.errors import Closed, OutcomeUnknown, Refused, Unavailable
from roomcast_client.events import (
    Ack,
    Connected,
    Degraded,
    Draining,
    Joined,
    Lost,
    Mark,
    Message,
    Position,
    Receipt,
    Reset,
    Restored,
    Roster,
    Trouble,
    Typing,
)
from roomcast_client.machine import REPLY_S, Machine
from roomcast_client.outbox import WINDOW

from tests.clients.python.frames import (
    NOW,
    WELCOME,
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

# Joining and following.


def test_a_join_before_the_welcome_waits_for_it() -> None:
    machine = Machine()
    assert join(machine) == []
    assert machine.opened(NOW) == []
    effects = machine.received(WELCOME, NOW, 0)
    assert effects == [Tell(Connected("n1", 42, False)), Send({"op": "join", "id": 1, "room": "r"})]


def test_a_join_asks_for_presence_history_and_an_earlier_position() -> None:
    effects = join(connected(), presence=True, history=20, resume=Position("e", 5, "t5"))
    frame = {"op": "join", "id": 1, "room": "r", "presence": True, "history": 20}
    assert sent(effects) == [frame | {"resume": {"epoch": "e", "offset": 5, "tag": "t5"}}]


def test_the_reply_to_a_join_gives_history_receipts_and_members_then_the_join_is_done() -> None:
    machine = connected()
    join(machine, history=2)
    extra: dict[str, Any] = {
        "receipts": [{"user_id": 42, "delivered": 58, "read": 57}],
        "unread": 3,
        "members": {"count": 3, "users": [1, "2"], "typing": [1]},
    }
    effects = machine.received(joined(1, 2, messages=[message(1), message(2)], **extra), NOW, 0)
    assert effects == [
        TellRoom("r", Message("r", "e", 1, "t1", 7, 1.5, "x")),
        TellRoom("r", Message("r", "e", 2, "t2", 7, 1.5, "x")),
        TellRoom("r", Joined("r", None, 2, (Mark(42, 58, 57),), 3)),
        TellRoom("r", Roster("r", (1, "2"), 3, (1,))),
        Done(1, Position("e", 2, "t2")),
    ]


def test_live_messages_are_told_once_and_duplicates_not() -> None:
    machine = in_room(5)
    assert offsets(machine.received(message(6), NOW, 0)) == [6]
    assert machine.received(message(6), NOW, 0) == []
    assert machine.received(message(4), NOW, 0) == []
    assert offsets(machine.received(message(7), NOW, 0)) == [7]


def test_a_hole_is_repaired_by_joining_again_from_the_position() -> None:
    machine = in_room(5)
    effects = machine.received(message(8), NOW, 0)
    assert effects == [Send({"op": "join", "id": 2, "room": "r", "resume": {"epoch": "e", "offset": 5, "tag": "t5"}})]
    missed = [message(6), message(7), message(8)]
    assert offsets(machine.received(joined(2, 8, messages=missed, recovered=True), NOW, 0)) == [6, 7, 8]
    assert offsets(machine.received(message(9), NOW, 0)) == [9]


def test_a_position_in_place_of_a_message_counts_and_is_not_told() -> None:
    machine = in_room(5)
    frame = {"op": "broadcast", "type": "position", "room": "r", "offset": 6, "tag": "t6"}
    assert machine.received(frame, NOW, 0) == []
    assert offsets(machine.received(message(7), NOW, 0)) == [7]


def test_a_reconnect_resumes_page_by_page() -> None:
    machine = in_room(5)
    assert sent(reconnected(machine))[0]["resume"] == {"epoch": "e", "offset": 5, "tag": "t5"}
    effects = machine.received(joined(2, 7, messages=[message(6), message(7)], recovered=True, more=True), NOW, 0)
    assert offsets(effects) == [6, 7]
    assert sent(effects)[0]["resume"] == {"epoch": "e", "offset": 7, "tag": "t7"}
    effects = machine.received(joined(3, 8, messages=[message(8)], recovered=True), NOW, 0)
    assert told(effects)[-1] == Joined("r", True, 3, (), None)


def test_what_cannot_be_resumed_is_a_reset_and_the_next_message_says_so() -> None:
    machine = in_room(5)
    reconnected(machine)
    effects = machine.received(joined(2, 1, epoch="e2", recovered=False), NOW, 0)
    assert told(effects) == [Reset("r", Position("e2", 1, "t1")), Joined("r", False, 0, (), None)]
    [first] = told(machine.received(message(2), NOW, 0))
    [second] = told(machine.received(message(3), NOW, 0))
    assert (first.epoch, first.offset, first.after_reset) == ("e2", 2, True)
    assert second.after_reset is False


def test_a_reset_of_a_live_room_moves_the_position() -> None:
    machine = in_room(5)
    frame = {"op": "broadcast", "type": "reset", "room": "r", "epoch": "e2", "offset": 0, "tag": "0"}
    assert told(machine.received(frame, NOW, 0)) == [Reset("r", Position("e2", 0, "0"))]
    assert offsets(machine.received(message(1), NOW, 0)) == [1]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(joined(2, 8, messages=[message(6), message(8)], recovered=True), id="hole inside"),
        pytest.param(joined(2, 8, messages=[message(7), message(8)], recovered=True), id="hole before"),
        pytest.param(joined(2, 8, messages=[message(6), message(7)], recovered=True), id="ends early"),
        pytest.param(joined(2, 8, recovered=True), id="claims more than it holds"),
        pytest.param(joined(2, 6, epoch="e2", messages=[message(6)], recovered=True), id="another epoch"),
        pytest.param(joined(2, 6, messages=[{"op": "broadcast"}], recovered=True), id="no message"),
    ],
)
def test_a_reply_with_a_hole_is_not_believed(reply: dict[str, Any]) -> None:
    machine = in_room(5)
    reconnected(machine)
    effects = machine.received(reply, NOW, 0)
    assert [type(effect) for effect in effects] == [Drop]
    assert sent(reconnected(machine))[0]["resume"]["offset"] == 5


def test_a_refused_join_fails_and_its_error_event_is_not_told_twice() -> None:
    machine = connected()
    join(machine)
    assert machine.received({"op": "broadcast", "type": "error", "room": "r", "message": "no"}, NOW, 0) == []
    [failed] = machine.received({"op": "reply", "id": 1, "ok": False, "code": "unauthorized", "message": "no"}, NOW, 0)
    assert isinstance(failed, Failed) and isinstance(failed.error, Refused) and failed.error.code == "unauthorized"
    assert sent(reconnected(machine)) == []


def test_a_join_that_is_unavailable_is_tried_again_until_its_time_is_over() -> None:
    machine = connected()
    join(machine)
    assert machine.received({"op": "reply", "id": 1, "ok": False, "code": "unavailable", "message": ""}, NOW, 0.5) == []
    assert machine.tick(NOW + 0.05, 0) == []
    assert sent(machine.tick(NOW + 2, 0)) == [{"op": "join", "id": 2, "room": "r"}]
    effects = machine.tick(NOW + 10, 0)
    assert isinstance(effects[0], Failed) and isinstance(effects[0].error, Unavailable)
    assert sent(effects) == [{"op": "leave", "room": "r", "id": 3}]


def test_a_room_that_is_refused_after_a_reconnect_ends() -> None:
    machine = in_room()
    reconnected(machine)
    effects = machine.received({"op": "reply", "id": 2, "ok": False, "code": "forbidden", "message": "out"}, NOW, 0)
    assert told(effects) == [Trouble("r", "forbidden", "out")]
    assert isinstance(effects[-1], Ended) and effects[-1].room == "r"


def test_after_leaving_nothing_more_of_the_room_is_told() -> None:
    machine = in_room(5)
    assert sent(machine.leave(2, "r", NOW)) == [{"op": "leave", "room": "r", "id": 2}]
    assert machine.received(message(6), NOW, 0) == []
    assert machine.received({"op": "reply", "id": 2, "ok": True}, NOW, 0) == [Done(2, None)]
    assert sent(reconnected(machine)) == []


# A slow application.


def test_a_parked_room_is_told_nothing_and_goes_on_from_its_position() -> None:
    machine = in_room(5)
    machine.park("r")
    assert machine.received(message(6), NOW, 0) == []
    assert sent(machine.unpark("r", NOW))[0]["resume"]["offset"] == 5
    effects = machine.received(joined(2, 6, messages=[message(6)], recovered=True), NOW, 0)
    assert offsets(effects) == [6]


def test_a_parked_room_in_which_nothing_happened_is_not_joined_again() -> None:
    machine = in_room(5)
    machine.park("r")
    assert machine.unpark("r", NOW) == []
    assert offsets(machine.received(message(6), NOW, 0)) == [6]


def test_whoever_never_reads_can_still_send_after_a_reconnect() -> None:
    machine = in_room(5)
    machine.park("r")
    assert sent(reconnected(machine)) == [{"op": "join", "id": 2, "room": "r"}]
    machine.received(joined(2, 900), NOW, 0)
    assert len(sent(send(machine))) == 1
    assert sent(machine.unpark("r", NOW))[0]["resume"]["offset"] == 5


# Sending.


def test_a_message_is_acknowledged_with_its_place() -> None:
    machine = in_room()
    assert send(machine) == [Send({"op": "message", "room": "r", "key": "k9", "id": 2}, '"hi"')]
    reply = {"op": "reply", "id": 2, "ok": True, "room": "r", "epoch": "e", "offset": 6, "tag": "t6"}
    assert machine.received(reply, NOW, 0) == [Done(9, Ack("e", 6, "t6"))]


def test_unacknowledged_messages_are_sent_again_with_their_keys_in_order_once_the_room_is_live() -> None:
    machine = in_room()
    for ticket in (2, 3, 4):
        send(machine, ticket)
    machine.received({"op": "reply", "id": 3, "ok": True, "epoch": "e", "offset": 7, "tag": "t7"}, NOW, 0)
    assert [frame["op"] for frame in sent(reconnected(machine))] == ["join"]
    effects = machine.received(joined(5, 5, recovered=True), NOW, 0)
    assert [frame["key"] for frame in sent(effects)] == ["k2", "k4"]


def test_at_most_a_window_of_messages_is_unanswered() -> None:
    machine = in_room()
    frames = [frame for ticket in range(2, 102) for frame in sent(send(machine, ticket))]
    assert len(frames) == WINDOW
    reply = {"op": "reply", "id": frames[0]["id"], "ok": True, "epoch": "e", "offset": 6, "tag": "t6"}
    assert [frame["key"] for frame in sent(machine.received(reply, NOW, 0))] == [f"k{WINDOW + 2}"]


@pytest.mark.parametrize("code", ["unavailable", "timeout", "rate_limited"])
def test_what_the_server_cannot_do_now_is_tried_again_with_the_same_key(code: str) -> None:
    machine = in_room()
    send(machine)
    assert machine.received({"op": "reply", "id": 2, "ok": False, "code": code, "message": ""}, NOW, 0.5) == []
    assert machine.tick(NOW + 0.05, 0) == []
    assert [frame["key"] for frame in sent(machine.tick(NOW + 5, 0))] == ["k9"]


def test_what_the_server_refuses_fails_at_once() -> None:
    machine = in_room()
    send(machine)
    [effect] = machine.received({"op": "reply", "id": 2, "ok": False, "code": "forbidden", "message": "no"}, NOW, 0)
    assert isinstance(effect, Failed) and isinstance(effect.error, Refused)


def failure(effects: list[Effect]) -> object:
    [error] = [effect.error for effect in effects if isinstance(effect, Failed)]
    return type(error)


def test_a_message_that_was_never_sent_is_unavailable_in_the_end() -> None:
    machine = in_room()
    machine.closed(1006, "", NOW, 0)
    send(machine)
    assert failure(machine.tick(NOW + 30, 0)) is Unavailable


def test_a_message_on_its_way_when_the_connection_was_cut_has_an_unknown_outcome_in_the_end() -> None:
    machine = in_room()
    send(machine)
    machine.closed(1006, "", NOW, 0)
    assert failure(machine.tick(NOW + 30, 0)) is OutcomeUnknown


def test_a_message_whose_server_does_not_know_either_has_an_unknown_outcome_in_the_end() -> None:
    machine = in_room()
    send(machine)
    machine.received({"op": "reply", "id": 2, "ok": False, "code": "timeout", "message": ""}, NOW, 0.5)
    machine.closed(1006, "", NOW, 0)
    assert failure(machine.tick(NOW + 30, 0)) is OutcomeUnknown


def test_under_a_new_session_nothing_is_sent_twice() -> None:
    machine = in_room()
    send(machine, 9)
    machine.closed(1006, "", NOW, 0)
    send(machine, 10)
    machine.opened(NOW)
    effects = machine.received(WELCOME | {"session": "another"}, NOW, 0)
    assert failure(effects) is OutcomeUnknown
    effects = machine.received(joined(3, 5, recovered=True), NOW, 0)
    assert [frame["key"] for frame in sent(effects)] == ["k10"]


def test_leaving_fails_what_waits_for_the_room() -> None:
    machine = in_room()
    machine.closed(1006, "", NOW, 0)
    send(machine)
    effects = machine.leave(2, "r", NOW)
    assert failure(effects) is Closed
    assert failure(send(machine, 11)) is Closed


def test_history_and_members_are_answers() -> None:
    machine = in_room()
    machine.request(2, {"op": "history", "room": "r", "limit": 2}, NOW, room="r", timeout_s=10)
    page = {"op": "reply", "id": 2, "ok": True, "room": "r", "epoch": "e", "messages": [message(1), message(2)]}
    [done] = machine.received(page, NOW, 0)
    assert isinstance(done, Done) and [each.offset for each in done.value] == [1, 2]
    machine.request(3, {"op": "get_presence", "room": "r"}, NOW, room="r", timeout_s=10)
    roster = {"op": "broadcast", "type": "presence_list", "room": "r", "users": [1, "2"], "count": 5, "next": "2"}
    assert machine.received(roster, NOW, 0) == []
    done = machine.received({"op": "reply", "id": 3, "ok": True}, NOW, 0)[0]
    assert done == Done(3, Roster("r", (1, "2"), 5, (), "2"))
    assert told(machine.received(roster, NOW, 0)) == [Roster("r", (1, "2"), 5, (), "2")]


# Typing and receipts.


def test_typing_is_a_frame_at_most_every_three_seconds_and_when_it_ends() -> None:
    machine = in_room()
    assert sent(machine.typing("r", True, NOW)) == [{"op": "typing", "room": "r", "typing": True}]
    assert machine.typing("r", True, NOW + 2.9) == []
    assert len(machine.typing("r", True, NOW + 3)) == 1
    assert sent(machine.typing("r", False, NOW + 3.1)) == [{"op": "typing", "room": "r", "typing": False}]
    assert machine.typing("r", False, NOW + 3.2) == []


def test_a_receipt_only_goes_up_and_is_told_again_after_a_reconnect() -> None:
    machine = in_room(9)
    frame = {"op": "receipt", "room": "r", "message_id": 7, "status": "read"}
    assert sent(machine.receipt("r", "read", 7)) == [frame]
    assert machine.receipt("r", "read", 6) == []
    reconnected(machine)
    assert sent(machine.received(joined(2, 9, recovered=True), NOW, 0)) == [frame]


def test_a_receipt_of_another_epoch_is_not_told_again() -> None:
    machine = in_room(9)
    machine.receipt("r", "read", 7)
    reconnected(machine)
    assert sent(machine.received(joined(2, 0, epoch="e2", recovered=False), NOW, 0)) == []


def test_what_others_do_is_told() -> None:
    machine = in_room()
    typing = {"op": "broadcast", "type": "typing", "room": "r", "user_id": 42, "typing": True}
    receipt = {"op": "broadcast", "type": "receipt", "room": "r", "message_id": 5, "user_id": 42, "status": "read"}
    assert told(machine.received(typing, NOW, 0)) == [Typing("r", 42, True)]
    assert told(machine.received(receipt, NOW, 0)) == [Receipt("r", 42, 5, "read")]


# The connection.


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 4001, 4002, 4004])
def test_a_fatal_close_asks_for_no_connection(code: int) -> None:
    assert in_room().closed(code, "", NOW, 0.5) == []


@pytest.mark.parametrize(
    ("code", "limit_s"),
    [
        (1000, 0.5),
        (1001, 0.5),
        (1006, 0.5),
        (1011, 2.0),
        (1012, 0.5),
        (1013, 8.0),
        (4003, 0.5),
        (4008, 0.5),
        (4010, 8.0),
    ],
)
def test_every_other_close_waits_up_to_its_limit(code: int, limit_s: float) -> None:
    effects = in_room().closed(code, "why", NOW, 0.5)
    assert effects == [Tell(Lost(code, "why", limit_s / 2)), Connect(limit_s / 2)]


def test_a_drain_says_when_to_come_back() -> None:
    machine = in_room()
    assert told(machine.received({"op": "drain", "retry_after_ms": 1730}, NOW, 0)) == [Draining(1.73)]
    assert machine.closed(1012, "", NOW, 0.9)[-1] == Connect(1.73)
    machine.opened(NOW)
    assert machine.closed(1006, "", NOW, 1.0)[-1] != Connect(1.73)


def test_who_is_told_to_back_off_comes_back_no_sooner() -> None:
    machine = in_room()
    assert told(machine.received({"op": "backoff", "retry_after_ms": 31_000}, NOW, 0)) == []
    assert machine.closed(4010, "", NOW, 0.0)[-1] == Connect(31.0)


def test_failures_in_a_row_wait_longer_and_a_connection_that_held_ends_the_row() -> None:
    machine = in_room()
    limits = [machine.closed(1006, "", NOW, 1.0)[-1] for _ in range(4)]
    assert limits == [Connect(0.5), Connect(1.0), Connect(2.0), Connect(4.0)]
    machine.opened(NOW)
    machine.received(WELCOME, NOW, 0)
    assert machine.closed(1006, "", NOW + 10, 1.0)[-1] == Connect(0.5)


def test_a_forgiven_row_of_failures_is_none() -> None:
    machine = in_room()
    for _ in range(5):
        machine.closed(1006, "", NOW, 1.0)
    machine.forgive()
    assert machine.closed(1006, "", NOW, 1.0)[-1] == Connect(0.5)


def test_a_token_that_expires_is_replaced_on_the_open_connection() -> None:
    machine = in_room()
    assert machine.received({"op": "auth_expiring", "in_s": 30}, NOW, 0) == [NewToken()]
    assert sent(machine.auth("fresh", NOW)) == [{"op": "auth", "token": "fresh", "id": 2}]
    assert machine.received({"op": "reply", "id": 2, "ok": True}, NOW, 0) == []


def test_the_health_of_the_server_is_told() -> None:
    machine = in_room()
    assert told(machine.received({"op": "degraded", "since": 5.5}, NOW, 0)) == [Degraded(5.5)]
    assert told(machine.received({"op": "restored"}, NOW, 0)) == [Restored()]


def test_a_server_that_does_not_answer_is_given_up() -> None:
    machine = in_room()
    before = machine.idle
    send(machine)
    assert (before, machine.idle) == (True, False)
    assert machine.tick(NOW + REPLY_S - 1, 0) == []
    assert [type(effect) for effect in machine.tick(NOW + REPLY_S, 0)] == [Drop]


def test_a_server_that_does_not_welcome_is_given_up() -> None:
    machine = Machine()
    machine.opened(NOW)
    assert [type(effect) for effect in machine.tick(NOW + REPLY_S, 0)] == [Drop]


@pytest.mark.parametrize("frame", [None, 5, [], {}, {"op": "reply"}, message(6) | {"offset": "6"}, {"op": "broadcast"}])
def test_nonsense_ends_the_connection(frame: Any) -> None:
    assert [type(effect) for effect in in_room(5).received(frame, NOW, 0)] == [Drop]


@pytest.mark.parametrize(
    "frame",
    [
        {"op": "new"},
        {"op": "broadcast", "type": "new", "room": "r"},
        {"op": "reply", "id": 99, "ok": True},
        message(1, room="q"),
    ],
)
def test_what_a_later_server_may_say_is_ignored(frame: dict[str, Any]) -> None:
    assert in_room().received(frame, NOW, 0) == []


def test_stopping_fails_everything_that_waits() -> None:
    machine = in_room()
    send(machine, 9)
    machine.closed(1006, "", NOW, 0)
    send(machine, 10)
    machine.join(11, "q", NOW, presence=False, history=0, resume=None, timeout_s=10)
    error = Closed("the end")
    assert machine.stop(error) == [Failed(9, error), Failed(10, error), Failed(11, error), Stop(error)]
    assert machine.closed(1006, "", NOW, 0) == [], "no connection after the end"
