"""The state machine against noise: frames drawn as in tests/clients/js/properties.test.mjs."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from roomcast_client.effects import Connect, Done, Drop, Effect, Ended, Entered, Failed, Send, TellRoom
from roomcast_client.errors import Closed
from roomcast_client.events import Message, Reset
from roomcast_client.machine import Machine

ROOMS = st.sampled_from(["a", "b", "c"])
ANY_ROOM = ROOMS | st.none()
IDS = st.sampled_from([1, 2, 3, 4, 5, "j1", None])
OFFSETS = st.sampled_from([0, 1, 2, 3, 4, 5, 6, -1, 2**53, None, "3"])


def frame(op: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Keys that are None are left out, as undefined is in JavaScript."""
    made = st.fixed_dictionaries({"op": st.just(op), **fields})
    return made.map(lambda each: {key: value for key, value in each.items() if value is not None})


LOGGED = frame(
    "broadcast",
    type=st.sampled_from(["message", "message", "position"]),
    room=ANY_ROOM,
    offset=OFFSETS,
    tag=st.just("t"),
    ts=st.just(1),
    data=st.just("x"),
)
FRAMES = st.one_of(
    LOGGED,
    LOGGED,
    frame("welcome", session=st.sampled_from(["s", "s", "z"]), node=st.just("n"), max_message=st.just(100)),
    frame(
        "broadcast",
        type=st.sampled_from(
            ["reset", "joined", "left", "typing", "presence", "presence_list", "receipt", "error", "new"]
        ),
        room=ANY_ROOM,
        offset=OFFSETS,
        epoch=st.just("f"),
        tag=st.just("t"),
        users=st.just([1]),
        user_id=st.just(1),
        message=st.just("no"),
    ),
    frame(
        "reply",
        id=IDS,
        ok=st.sampled_from([True, True, True, False]),
        code=st.sampled_from(["timeout", "forbidden", "internal"]),
        epoch=st.sampled_from(["e", "f"]),
        offset=OFFSETS,
        tag=st.just("t"),
        room=ANY_ROOM,
        recovered=st.sampled_from([None, True, False]),
        more=st.sampled_from([None, None, True]),
        messages=st.lists(LOGGED, max_size=2),
    ),
    st.sampled_from(["degraded", "restored", "drain", "auth_expiring", "pong", "new"]).map(lambda op: {"op": op}),
    st.sampled_from([None, 7, "text", [], {}]),
)
STEPS = st.one_of(
    *[st.tuples(st.just("received"), FRAMES)] * 4,
    st.tuples(st.just("opened"), st.none()),
    st.tuples(st.just("tick"), st.none()),
    st.tuples(st.just("closed"), st.sampled_from([1000, 1006, 1012, 4001, 4003, 4009])),
    st.tuples(st.just("join"), ROOMS),
    st.tuples(st.just("leave"), ROOMS),
    st.tuples(st.just("message"), ROOMS),
    st.tuples(st.sampled_from(["park", "unpark", "typing", "receipt"]), ROOMS),
)


class Listener:
    """Does what the machine says, and believes nothing."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.now = 0.0
        self.seen: dict[str, int] = {}
        self.inside: set[str] = set()
        self.tickets = 0
        self.settled: set[int] = set()
        self.open = False

    def step(self, event: str, what: Any) -> None:
        machine, now = self.machine, self.now
        if event == "received":
            self.apply(machine.received(what, now, 0.5))
        elif event == "opened" and not self.open:
            self.open = True
            self.apply(machine.opened(now))
        elif event == "tick":
            self.apply(machine.tick(now, 0.5))
        elif event == "closed":
            self.open = False
            self.apply(machine.closed(what, "", now, 0.5))
        elif event == "join" and what not in self.inside:
            self.inside.add(what)
            self.tickets += 1
            options: dict[str, Any] = {"presence": False, "history": 0, "resume": None, "timeout_s": 20.0}
            self.apply(machine.join(self.tickets, what, now, **options))
        elif event == "leave" and what in self.inside:
            self.inside.discard(what)
            self.seen.pop(what, None)
            self.tickets += 1
            self.apply(machine.leave(self.tickets, what, now))
        elif event == "message":
            self.tickets += 1
            request = {"op": "message", "room": what, "key": f"k{self.tickets}"}
            self.apply(machine.request(self.tickets, request, now, data="1", room=what, timeout_s=20.0))
        elif event == "park":
            self.apply(machine.park(what))
        elif event == "unpark":
            self.apply(machine.unpark(what, now))
        elif event == "typing":
            self.apply(machine.typing(what, True, now))
        elif event == "receipt":
            self.apply(machine.receipt(what, "read", 3))

    def apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    assert self.open, "sent without a connection"
                case TellRoom(room, Message() as message):
                    assert message.offset > self.seen.get(room, -1), "not in order"
                    self.seen[room] = message.offset
                case TellRoom(room, Reset()):
                    self.seen.pop(room, None)
                case Entered(room, _) | Ended(room, _):
                    self.seen.pop(room, None)
                    (self.inside.add if isinstance(effect, Entered) else self.inside.discard)(room)
                case Done(ticket, _):
                    self.settle(ticket)
                case Failed(ticket, _):
                    self.settle(ticket)
                case Connect(after_s):
                    assert after_s >= 0
                case Drop():
                    self.open = False
                case _:
                    pass

    def settle(self, ticket: int) -> None:
        assert ticket not in self.settled, "answered twice"
        self.settled.add(ticket)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 1.0, 6.0]), STEPS), max_size=120))
def test_noise_never_raises_never_skips_back_and_never_answers_twice(
    steps: list[tuple[float, tuple[str, Any]]],
) -> None:
    listener = Listener()
    for seconds, (event, what) in [(0.0, ("opened", None)), (0.0, ("received", WELCOME)), *steps]:
        listener.now += seconds
        listener.step(event, what)
    listener.apply(listener.machine.stop(Closed("the end")))
    assert listener.settled == set(range(1, listener.tickets + 1)), "a request was forgotten"


WELCOME = {"op": "welcome", "session": "s", "node": "n", "max_message": 100}
