"""The room's state machine against a model log that forks, is trimmed, rolled back and lost, behind a wire that drops,
doubles, reorders and delays; and what must never happen: a hole, a duplicate or a wrong order without a reset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, assume, given, note, settings
from hypothesis import strategies as st

from broker.base import Entry, Page, Position
from server import sync
from server.sync import Deliver, Effect, Read, Reset, RoomLog, recover


class Log:
    """What Redis does to a room's log, faults included. No two entries ever have the same tag."""

    def __init__(self) -> None:
        self._made = 0
        self.lose()

    def _new(self, kind: str) -> bytes:
        self._made += 1
        return f"{kind}{self._made}".encode()

    def lose(self) -> None:
        """FLUSHALL, or an empty restart: a new epoch."""
        self.epoch = self._new("e")
        self.entries: list[Entry] = []
        self.trimmed = 0

    @property
    def top(self) -> Position:
        if not self.entries:
            return Position(self.epoch, 0, b"0")
        last = self.entries[-1]
        return Position(last.epoch, last.offset, last.tag)

    def positions(self) -> list[Position]:
        """Every place there is in this log, oldest first."""
        return [Position(self.epoch, 0, b"0"), *(Position(e.epoch, e.offset, e.tag) for e in self.entries)]

    def append(self) -> Entry:
        top = self.top
        entry = Entry(self.epoch, top.offset + 1, top.tag, self._new("t"), b"x")
        self.entries.append(entry)
        return entry

    def trim(self, upto: int) -> None:
        """Entries up to this offset are no longer kept."""
        self.trimmed = max(self.trimmed, min(upto, len(self.entries)))

    def roll_back(self, offset: int) -> None:
        """A fail-over or an old snapshot: the tail is gone, the epoch is the same."""
        del self.entries[offset:]
        self.trimmed = min(self.trimmed, len(self.entries))

    def read(self, since: int | None, limit: int) -> Page:
        if since is None:
            return Page(self.top, [])
        return Page(self.top, self.entries[max(since, self.trimmed) :][:limit])


def entry(offset: int, prev: str, tag: str, epoch: str = "e", payload: bytes = b"x") -> Entry:
    return Entry(epoch.encode(), offset, prev.encode(), tag.encode(), payload)


def position(offset: int, tag: str, epoch: str = "e") -> Position:
    return Position(epoch.encode(), offset, tag.encode())


def live_at(offset: int, tag: str) -> RoomLog:
    room = RoomLog()
    assert room.read() == Read(None)
    assert room.page(Page(position(offset, tag), [])) == []
    assert room.live
    return room


# One thing at a time.


def test_a_room_begins_at_the_top_and_delivers_what_follows() -> None:
    room = RoomLog()
    assert room.frame(entry(7, "f", "g")) is False  # before the first read: kept
    assert room.read() == Read(None)
    assert room.frame(entry(8, "g", "h")) is False
    assert room.page(Page(position(7, "g"), [])) == [Deliver([entry(8, "g", "h")])]
    assert room.frame(entry(9, "h", "i")) is True
    assert (room.live, room.position) == (True, position(9, "i"))


def test_what_was_delivered_is_dropped() -> None:
    room = live_at(7, "g")
    assert room.frame(entry(7, "f", "g")) is False
    assert room.frame(entry(1, "0", "a")) is False
    assert room.live


def test_a_hole_is_read_and_delivered_in_order() -> None:
    room = live_at(7, "g")
    assert room.frame(entry(9, "h", "i")) == Read(7)
    assert room.frame(entry(10, "i", "j")) is False
    missed = [entry(8, "g", "h"), entry(9, "h", "i")]
    assert room.page(Page(position(9, "i"), missed)) == [Deliver(missed), Deliver([entry(10, "i", "j")])]
    assert room.live


@pytest.mark.parametrize("frame", [entry(8, "x", "y"), entry(8, "g", "h", epoch="f")])
def test_a_wrong_link_is_not_judged_before_the_log_was_read(frame: Entry) -> None:
    """It may be old news of a server that is no longer the master: the log knows nothing of it, nothing is lost."""
    room = live_at(7, "g")
    assert room.frame(frame) == Read(7)
    assert room.page(Page(position(7, "g"), [])) == []
    assert (room.live, room.position) == (True, position(7, "g"))


@pytest.mark.parametrize(
    "page",
    [
        Page(position(0, "0", epoch="f"), []),  # another epoch
        Page(position(9, "y"), [entry(8, "x", "z"), entry(9, "z", "y")]),  # forked before us
        Page(position(7, "x"), []),  # forked at our offset
        Page(position(5, "e"), []),  # rolled back
        Page(position(9, "i"), []),  # trimmed as a whole
        Page(position(9, "i"), [entry(9, "h", "i")]),  # trimmed in part
    ],
)
def test_only_a_read_resets(page: Page) -> None:
    room = live_at(7, "g")
    room.suspect()
    assert room.read() == Read(7)
    assert room.page(page) == [Reset(page.top)]
    assert (room.live, room.position) == (True, page.top)


def test_pages_are_delivered_one_by_one_until_the_top() -> None:
    room = live_at(0, "0")
    assert room.frame(entry(4, "c", "d")) == Read(0)
    assert room.page(Page(position(4, "d"), [entry(1, "0", "a"), entry(2, "a", "b")])) == [
        Deliver([entry(1, "0", "a"), entry(2, "a", "b")]),
        Read(2),
    ]
    assert not room.live
    assert room.page(Page(position(4, "d"), [entry(3, "b", "c"), entry(4, "c", "d")])) == [
        Deliver([entry(3, "b", "c"), entry(4, "c", "d")])
    ]
    assert room.live


@pytest.mark.parametrize(
    ("entries", "payload"), [(sync.MAX_KEPT_ENTRIES + 1, b""), (5, bytes(sync.MAX_KEPT_BYTES // 4))]
)
def test_too_much_to_keep_is_dropped_and_read_again(entries: int, payload: bytes) -> None:
    room = live_at(0, "0")
    room.suspect()
    assert room.read() == Read(0)
    assert not any(room.frame(entry(n, f"t{n - 1}", f"t{n}", payload=payload)) for n in range(2, entries + 2))
    assert room._kept == []
    first = entry(1, "0", "t1")
    assert room.page(Page(position(1, "t1"), [first])) == [Deliver([first]), Read(1)]
    assert not room.live


def test_a_room_that_stands_at_the_top_missed_nothing_and_is_not_read() -> None:
    room = live_at(7, "g")
    room.suspect()
    assert not room.live
    assert room.frame(entry(8, "g", "h")) is False
    assert room.verify(position(7, "g")) == [Deliver([entry(8, "g", "h")])]
    assert room.live


@pytest.mark.parametrize("top", [None, position(8, "h"), position(7, "x"), position(7, "g", epoch="f")])
def test_a_room_that_stands_elsewhere_is_read(top: Position | None) -> None:
    room = live_at(7, "g")
    room.suspect()
    assert room.verify(top) == [Read(7)]
    assert not room.live


@pytest.mark.parametrize("look", [lambda room, top: room.verify(top), lambda room, top: room.page(Page(top, []))])
def test_a_look_that_may_have_come_too_early_is_repeated(look: Callable[[RoomLog, Position], list[Effect]]) -> None:
    """The top was asked for, then the subscription was lost and made anew: what came in between nobody told us."""
    room = live_at(7, "g")
    room.suspect()
    room.suspect()
    assert look(room, position(7, "g")) == [Read(7)]
    assert not room.live


# Arbitrary faults.


class World:
    """Plays server/rooms.py, Redis and the wire between them. ``told`` is where a member stands by what it was told.

    Hypothesis writes a program of bytes, two for each thing that happens: what, and a number. (Its own state machines
    say the same in more words, but take 100 ms for what takes 2 ms here.)
    """

    def __init__(self, room: RoomLog) -> None:
        self.log = Log()
        self.wire: list[Entry] = []
        self.past: list[Entry] = []
        self.connected = True
        self.uncertain = False
        """Something was missed of which no event told: only the next entry or event can show it."""
        self.room = room
        self.told: Position | None = None
        self.look: Read | None = None
        """What is to reach the log; ``ASK`` asks for the top alone."""
        self.answer: Page | None = None
        self.verifying = False
        self.failed = False
        self.seen: set[str] = set()
        self.start(self.room.read())

    def run(self, program: bytes) -> None:
        for what, n in zip(program[::2], program[1::2], strict=False):
            if what == 0:
                continue  # Hypothesis shrinks to zeros: they stand for nothing
            event = EVENTS[what % len(EVENTS)]
            note(f"{event.__name__}({n})")
            event(self, n)
            assert self.room.live or self.busy or self.failed
            assert len(self.room._kept) <= sync.MAX_KEPT_ENTRIES
            assert not (self.room.live and self.room._kept)
            if self.room.live and self.connected and not self.wire:
                self.check_nothing_is_missing()
        self.be_quiet(0)

    def check_nothing_is_missing(self) -> None:
        assert self.uncertain or self.told == self.log.top

    # What rooms.py does.

    def start(self, read: Read) -> None:
        assert not self.busy, "one read at a time"
        self.look = read

    @property
    def busy(self) -> bool:
        return self.look is not None or self.answer is not None

    def suspect(self) -> None:
        self.room.suspect()
        if not self.busy:
            self.start(ASK)

    def carry_out(self, effects: list[Effect]) -> None:
        for index, effect in enumerate(effects):
            if isinstance(effect, Deliver):
                assert effect.entries
                for item in effect.entries:
                    self.deliver(item)
                self.seen.add("back-filled")
            elif isinstance(effect, Reset):
                self.told = effect.position
                self.seen.add("reset")
            else:
                assert index == len(effects) - 1
                self.start(effect)
        assert self.room.live != self.busy
        assert self.told == self.room.position

    def deliver(self, item: Entry) -> None:
        """The promise: each entry follows the one told before, in its log and not only by number."""
        assert self.told is not None
        assert item.epoch == self.told.epoch
        assert item.offset == self.told.offset + 1
        assert item.prev == self.told.tag
        self.told = Position(item.epoch, item.offset, item.tag)

    def hear(self, item: Entry) -> None:
        verdict = self.room.frame(item)
        if verdict is True:
            self.deliver(item)
            self.seen.add("live")
        elif verdict is not False:
            self.start(verdict)
            self.seen.add("hole")

    # What happens.

    def publish(self, n: int) -> None:
        for _ in range(1 + n % 6):
            item = self.log.append()
            self.past.append(item)
            if self.connected:
                self.wire.append(item)

    def arrive(self, n: int) -> None:
        for item in self.wire[: 1 + n % 7]:
            self.wire.remove(item)
            self.hear(item)

    def reach_the_log(self, n: int) -> None:
        if self.look is not None:
            look, self.look = self.look, None
            self.verifying = look is ASK
            if not self.verifying:
                assert look.since == (self.room.position.offset if self.room.position else None)
            self.answer = self.log.read(None if self.verifying else look.since, 1 + n % 4)

    def get_the_answer(self, n: int) -> None:
        if self.answer is not None:
            answer, self.answer = self.answer, None
            if self.told is None and not self.verifying:
                self.told = answer.top  # nobody is in the room before its first read
            self.carry_out(self.room.verify(answer.top) if self.verifying else self.room.page(answer))

    def fail_to_read(self, n: int) -> None:
        if self.busy:
            self.look = self.answer = None
            self.failed = True

    def try_again(self, n: int) -> None:
        """The broker is restored, or (odd) somebody wants to join."""
        if self.failed:
            self.failed = False
            if not self.room.live and not self.busy:
                if n % 2:
                    self.start(self.room.read())
                else:
                    self.suspect()

    def cut_the_wire(self, n: int) -> None:
        self.wire.clear()
        self.connected = False

    def resubscribe(self, n: int) -> None:
        if not self.connected:
            self.connected = True
            self.doubt(n)

    def doubt(self, n: int) -> None:
        """Resubscribed, or a client claims to be ahead, or a heartbeat found a rollback."""
        self.suspect()
        self.uncertain = False

    def trim(self, n: int) -> None:
        self.log.trim(n % 32)

    def roll_back_and_fork(self, n: int) -> None:
        self.cut_the_wire(n)  # a fail-over always costs the connection
        self.log.roll_back(max(0, len(self.log.entries) - n % 8))
        for _ in range(n // 8 % 8):
            self.past.append(self.log.append())
        self.seen.add("fork")

    def lose_the_log(self, n: int) -> None:
        self.log.lose()
        self.uncertain = True  # FLUSHALL: nobody tells us

    def lose_frames(self, n: int) -> None:
        if self.wire:
            del self.wire[n % len(self.wire)]
            self.uncertain = True

    def reorder_frames(self, n: int) -> None:
        if len(self.wire) > 1:
            self.wire.append(self.wire.pop(n % (len(self.wire) - 1)))
            self.uncertain = True

    def double_or_delay_a_frame(self, n: int) -> None:
        """Any frame that was ever sent, from any life of the log, comes now."""
        if self.past:
            self.hear(self.past[-1 - n % len(self.past)])
            self.uncertain = True

    def be_quiet(self, n: int) -> None:
        """With everything heard and read, the room stands at the top, unless something was lost in secret."""
        self.resubscribe(n)
        for _ in range(1000):
            if self.failed and not self.busy:
                self.try_again(n)
            elif self.answer is not None:
                self.get_the_answer(n)
            elif self.look is not None:
                self.reach_the_log(n)
            elif self.wire:
                self.arrive(n)
            else:
                break
        assert self.room.live, "it never comes to rest"
        self.check_nothing_is_missing()


ASK = Read(-1)
ORDINARY: tuple[Callable[[World, int], None], ...] = (
    World.publish,
    World.arrive,
    World.reach_the_log,
    World.get_the_answer,
    World.publish,
    World.arrive,
)
EVENTS = (
    *ORDINARY,
    World.doubt,
    *ORDINARY,
    World.cut_the_wire,
    *ORDINARY,
    World.resubscribe,
    *ORDINARY,
    World.fail_to_read,
    World.try_again,
    World.trim,
    World.roll_back_and_fork,
    World.lose_the_log,
    World.lose_frames,
    World.reorder_frames,
    World.double_or_delay_a_frame,
    World.be_quiet,
)


def check(room_class: type[RoomLog], examples: int, **more: Any) -> set[str]:
    """Run that many programs; returns what happened in them."""
    seen: set[str] = set()

    @settings(max_examples=examples, deadline=None, database=None, **more)
    @given(st.binary(min_size=80, max_size=160))
    def run(program: bytes) -> None:
        world = World(room_class())
        world.run(program)
        seen.update(world.seen)

    run()
    return seen


@pytest.fixture
def keep_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that little is already too much."""
    monkeypatch.setattr(sync, "MAX_KEPT_ENTRIES", 4)


@pytest.mark.usefixtures("keep_four")
def test_no_sequence_of_faults_makes_a_hole_a_duplicate_or_a_wrong_order() -> None:
    assert check(RoomLog, 3000) == {"live", "hole", "back-filled", "reset", "fork"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("keep_four")
def test_no_sequence_of_faults_does_in_many_more_runs() -> None:
    check(RoomLog, 50_000)


class IgnoresTags(RoomLog):
    """Epoch and offset alone, as elsewhere."""

    def frame(self, entry: Entry) -> bool | Read:
        if self.live and self.position is not None and entry.offset == self.position.offset + 1:
            entry = entry._replace(prev=self.position.tag)
        return super().frame(entry)


class TrustsEarlyLooks(RoomLog):
    """A suspicion that comes while a read is under way is forgotten."""

    def suspect(self) -> None:
        super().suspect()
        self._again = False


class ForgetsWhatItKept(RoomLog):
    def page(self, page: Page) -> list[Effect]:
        self._kept = []
        return super().page(page)


class ForgetsThatItDropped(RoomLog):
    def _keep(self, entry: Entry) -> None:
        again = self._again
        super()._keep(entry)
        self._again = again


class NeverResets(RoomLog):
    def page(self, page: Page) -> list[Effect]:
        return [effect for effect in super().page(page) if not isinstance(effect, Reset)]


class StopsAtTheFirstPage(RoomLog):
    def page(self, page: Page) -> list[Effect]:
        effects = super().page(page)
        if effects and isinstance(effects[-1], Read):
            self.live = True
            return effects[:-1]
        return effects


@pytest.mark.usefixtures("keep_four")
@pytest.mark.parametrize(
    "mutant",
    [IgnoresTags, TrustsEarlyLooks, ForgetsWhatItKept, ForgetsThatItDropped, NeverResets, StopsAtTheFirstPage],
)
def test_these_programs_find_mistakes(mutant: type[RoomLog]) -> None:
    with pytest.raises(AssertionError):
        check(mutant, 20_000, derandomize=True, phases=[Phase.generate])


# Resuming.

changes = st.lists(
    st.one_of(
        st.builds(lambda n: ("append", n), st.integers(1, 6)),
        st.builds(lambda n: ("trim", n), st.integers(0, 20)),
        st.builds(lambda n: ("roll_back", n), st.integers(0, 6)),
        st.just(("lose", 0)),
    ),
    max_size=8,
)


def play(history: list[tuple[str, int]]) -> tuple[Log, list[Position]]:
    """The log after these changes, and every position that somebody may have been given on the way."""
    log = Log()
    given_out = {log.top: None}
    for change, n in history:
        if change == "append":
            for _ in range(n):
                log.append()
                given_out[log.top] = None
        elif change == "trim":
            log.trim(n)
        elif change == "roll_back":
            log.roll_back(max(0, len(log.entries) - n))
        else:
            log.lose()
            given_out[log.top] = None
    return log, list(given_out)


def by_numbers(at: Position, page: Page) -> list[Entry] | None:
    """The check without tags, as Centrifuge has it: same epoch, contiguous offsets."""
    if at.epoch != page.top.epoch or at.offset > page.top.offset:
        return None
    if at.offset == page.top.offset:
        return []
    return page.entries if page.entries and page.entries[0].offset == at.offset + 1 else None


@settings(deadline=None)
@given(changes, st.data(), st.integers(1, 5))
def test_recovered_means_that_nothing_is_missing_and_it_is_said_whenever_it_is_true(
    history: list[tuple[str, int]], data: st.DataObject, limit: int
) -> None:
    log, given_out = play(history)
    at = data.draw(st.sampled_from(given_out))
    found = recover(at, log.read(at.offset, limit))
    path = log.positions()
    if at in path and (at.offset >= log.trimmed):
        assert found == log.entries[at.offset : at.offset + limit]
    else:
        assert found is None


@settings(deadline=None)
@given(changes, st.data())
def test_a_forged_position_recovers_nothing(history: list[tuple[str, int]], data: st.DataObject) -> None:
    log, _ = play(history)
    forged = Position(
        data.draw(st.sampled_from([log.epoch, b"", b"forged"])),
        data.draw(st.sampled_from([0, log.top.offset, log.top.offset + 1, 2**53 - 1]) | st.integers(0, 40)),
        data.draw(st.sampled_from([log.top.tag, b"0", b"", b"forged"])),
    )
    assume(forged not in log.positions())
    assert recover(forged, log.read(forged.offset, 100)) is None


def test_why_there_is_a_tag() -> None:
    """An old snapshot of Redis is restored and grows past where a client was: epoch and offsets all fit, and three
    messages are missing. Only the tags tell."""
    log = Log()
    for _ in range(102):
        log.append()
    for _ in range(3):
        log.append()
    client = log.top
    assert client.offset == 105
    log.roll_back(102)
    unseen = [log.append() for _ in range(3)]
    after = [log.append() for _ in range(5)]
    page = log.read(client.offset, 500)
    assert by_numbers(client, page) == after, "recovered, it says; 103, 104 and 105 of the new log are never seen:"
    assert [e.offset for e in unseen] == [103, 104, 105]
    assert recover(client, page) is None


@settings(deadline=None)
@given(changes, st.data())
def test_without_tags_only_forks_are_told_wrong(history: list[tuple[str, int]], data: st.DataObject) -> None:
    """Both checks agree wherever the log was never rolled back."""
    log, given_out = play([change for change in history if change[0] != "roll_back"])
    at = data.draw(st.sampled_from(given_out))
    page = log.read(at.offset, 100)
    assert by_numbers(at, page) == recover(at, page)
