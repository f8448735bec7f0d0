"""Whatever happens between server and client, the application sees the log in order, once, split only at resets.

Hypothesis plays publishers, Redis losing data, the network and a slow application against the state machine; the model
server keeps every entry with a link to the one before, so a silently skipped, repeated or forked entry cannot hide.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from roomcast_client.effects import Connect, Done, Drop, Effect, Ended, Entered, Failed, Send, TellRoom
from roomcast_client.errors import Closed, OutcomeUnknown, Refused, Removed, RoomcastError, Unavailable
from roomcast_client.events import Ack, Message, Position, Reset
from roomcast_client.machine import REPLY_S, Machine

from tests.clients.python.model_server import ModelServer

ROOM = "r"
SEND_TIMEOUT_S = 10.0
LUCK = 0.5


class Conversation(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.server = ModelServer(ROOM)
        self.machine = Machine()
        self.seen: list[Message | Reset] = []
        self.parked = False
        self.out = False
        self.after_reset = False
        self.drop = False
        self.broken = False
        self.tickets = 1
        self.results: dict[int, Ack | Position | RoomcastError | None] = {}
        self.texts: dict[int, str] = {}
        self.deadlines: dict[int, float] = {}
        self.published = 0
        self.position: Position | None = None
        self.last: str | None = None
        """The tag of the entry the application has seen last since the last reset."""
        self.server.append("before the join")
        self.server.append("before the join, too")
        join = self.machine.join(1, ROOM, self.now, presence=False, history=2, resume=None, timeout_s=1e9)
        self.apply(join)

    def apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            self.broken = True  # until this effect has proved right: teardown must not hide what is wrong with it
            match effect:
                case Send(frame, data):
                    self.server.handle(frame, data)
                case TellRoom(_, event):
                    assert not self.parked, "a parked room was given something"
                    if isinstance(event, Message | Reset):
                        self.see(event)
                case Done(ticket, value):
                    assert ticket not in self.results, "answered twice"
                    self.results[ticket] = value
                case Failed(ticket, error):
                    assert ticket not in self.results, "answered twice"
                    self.results[ticket] = error
                case Drop():
                    self.drop = True
                case Ended():
                    self.out, self.parked, self.after_reset = True, False, False
                case Entered(_, position):
                    self.out, self.last = False, self.shown(position.tag)
                    self.position = position
                case Connect(after_s):
                    assert after_s >= 0
                case _:
                    pass
            self.broken = False

    def see(self, event: Message | Reset) -> None:
        """The heart of it."""
        self.seen.append(event)
        self.position = event.position
        if isinstance(event, Reset):
            self.last, self.after_reset = None, True
            return
        entry = self.server.every[event.tag]
        assert (event.epoch, event.offset, event.data) == (entry.epoch, entry.offset, entry.data)
        assert event.after_reset is self.after_reset
        self.after_reset = False
        if self.last is not None:
            assert self.before(event.tag) == self.last, f"{event} does not follow {self.last}"
        self.last = event.tag

    def before(self, tag: str) -> str:
        """The entry before this one, as far as this client's session is shown it."""
        return self.shown(self.server.every[tag].prev)

    def shown(self, tag: str) -> str:
        """This entry, or the last one before it that is not hidden from the session."""
        while tag != "0" and self.server.every[tag].hidden_from == self.server.session:
            tag = self.server.every[tag].prev
        return tag

    # Good weather. Faults find something only in a conversation that gets somewhere in between.

    @initialize(calm=st.booleans())
    def begin(self, calm: bool) -> None:
        if calm:
            self.good_weather(1)

    @rule(n=st.integers(0, 7))
    def good_weather(self, n: int) -> None:
        """All faults end: the client comes to rest at the top of the log by itself."""
        self.server.available = True
        self.read_on()
        self.come_to_rest()
        for _ in range(n + 1):  # had the last frame been lost, only the next one would tell
            self.publish(1)
        self.come_to_rest()
        assert self.seen[-1].position == Position(*self.server.top)  # of a message, or of a reset right there
        assert sorted(self.results) == list(range(1, self.tickets + 1))

    def come_to_rest(self) -> None:
        for _ in range(400):
            if not self.server.connected:
                self.connect()
            self.deliver(10)
            if self.out:
                self.join_again()
            self.wait(0.3)
            if not self.server.queue and self.machine.connected and self.machine.idle:
                return
        raise AssertionError("the client does not come to rest")

    # The network.

    @precondition(lambda self: not self.server.connected)
    @rule()
    def connect(self) -> None:
        self.drop = False
        self.server.connect(self.machine.session)
        self.apply(self.machine.opened(self.now))

    @precondition(lambda self: self.server.connected)
    @rule()
    def cut(self) -> None:
        self.server.cut()
        self.apply(self.machine.closed(1006, "", self.now, LUCK))

    @rule(n=st.integers(1, 8))
    def reconnect_and_deliver(self, n: int) -> None:
        if not self.server.connected:
            self.connect()
        self.deliver(n)

    @rule(n=st.integers(1, 8))
    def deliver(self, n: int) -> None:
        for _ in range(n):
            if self.server.queue and not self.drop:
                self.apply(self.machine.received(self.server.queue.popleft(), self.now, LUCK))
        if self.drop and self.server.connected:
            self.cut()

    @precondition(lambda self: self.server.queue)
    @rule(index=st.integers(0, 5))
    def lose_a_frame(self, index: int) -> None:
        """TCP loses none, a broken node might. What moves the position cannot be missed: live frames carry no epoch."""
        index %= len(self.server.queue)
        if self.server.queue[index].get("type") not in ("reset", "joined", "left"):
            del self.server.queue[index]

    @precondition(lambda self: self.server.queue)
    @rule(index=st.integers(0, 5))
    def double_a_frame(self, index: int) -> None:
        index %= len(self.server.queue)
        if self.server.queue[index].get("type") in ("joined", "left"):
            return
        self.server.queue.insert(index, self.server.queue[index])

    # Time.

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, REPLY_S + 0.1]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.apply(self.machine.tick(self.now, LUCK))
        assert all(ticket in self.results for ticket, deadline in self.deadlines.items() if self.now >= deadline)
        if self.drop and self.server.connected:
            self.cut()

    # Redis and the other publishers.

    @rule(n=st.integers(1, 5))
    def publish(self, n: int) -> None:
        for _ in range(n):
            self.published += 1
            self.server.append(f"other {self.published}")

    @rule()
    def lose_the_log(self) -> None:
        self.server.lose()

    @rule()
    def put_in_or_out(self) -> None:
        self.server.move()

    @rule(n=st.integers(1, 4), again=st.integers(0, 4))
    def fork_the_log(self, n: int, again: int) -> None:
        """Back to older data; then new entries under the old offsets."""
        self.server.roll_back(n)
        self.publish(again) if again else None

    @rule()
    def trim_the_log(self) -> None:
        self.server.trim()

    @rule()
    def redis_goes_or_returns(self) -> None:
        self.server.available = not self.server.available

    # The application.

    @rule(echo=st.booleans())
    def send(self, echo: bool) -> None:
        self.tickets += 1
        text = f"own {self.tickets}"
        self.texts[self.tickets] = text
        self.deadlines[self.tickets] = self.now + SEND_TIMEOUT_S
        frame = {"op": "message", "room": ROOM, "key": f"k{self.tickets}"}
        if not echo:
            frame["echo"] = False  # type: ignore[assignment]
        self.apply(
            self.machine.request(self.tickets, frame, self.now, data=f'"{text}"', room=ROOM, timeout_s=SEND_TIMEOUT_S)
        )

    @precondition(lambda self: self.out)
    @rule()
    def join_again(self) -> None:
        """From where it was: nothing is lost by having been put out."""
        self.out = False
        self.tickets += 1
        self.apply(
            self.machine.join(
                self.tickets, ROOM, self.now, presence=False, history=0, resume=self.position, timeout_s=1e9
            )
        )

    @precondition(lambda self: self.seen and not self.out)
    @rule()
    def stop_reading(self) -> None:
        """Only an inbox that was given something can be full."""
        self.parked = True
        self.apply(self.machine.park(ROOM))

    @rule()
    def read_on(self) -> None:
        self.parked = False
        self.apply(self.machine.unpark(ROOM, self.now))

    # What must hold.

    @invariant()
    def acks_are_true(self) -> None:
        for ticket, result in self.results.items():
            if isinstance(result, Ack):
                entry = self.server.every[result.tag]
                assert (result.epoch, result.offset, entry.data) == (entry.epoch, entry.offset, self.texts[ticket])
            elif isinstance(result, RoomcastError):
                if isinstance(result, Refused):
                    assert result.code == "not_joined", result  # it was taken out when it sent this
                else:
                    assert isinstance(result, Unavailable | OutcomeUnknown | Removed | Closed), result
                if not isinstance(result, OutcomeUnknown):
                    assert all(entry.data != self.texts[ticket] for entry in self.server.every.values())

    @invariant()
    def one_send_is_one_entry(self) -> None:
        keys = [entry.key for entry in self.server.entries if entry.key is not None]
        assert len(keys) == len(set(keys))

    def teardown(self) -> None:
        if not self.broken:
            self.good_weather(0)


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
