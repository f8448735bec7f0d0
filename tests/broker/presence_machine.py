"""The state machine of presence: nodes, users, a store, and everything that can go wrong between them.

Nodes run the real decision code (broker.presence.Share, broker.follower.Follower) against a real store, one atomic step
at a time, in any order. Numbers I1 … I8 are the invariants; they are checked after every single step.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from broker.follower import Follower
from broker.presence import Beat, Entity, PresenceStore, Share
from tests.broker.presence_worlds import GRACE_MS, HEARTBEAT_MS, LEASE_MS, World, drive

ROOMS = (None, "r")
USERS = ("1", '"1 a"')
MAX_NODES = 3
MAX_BATCH = 2
QUIET_MS = LEASE_MS + 3 * HEARTBEAT_MS + GRACE_MS
TICK_MS = HEARTBEAT_MS * 95 // 100
START_MS = 1_700_000_000_000

entities = st.builds(Entity, st.sampled_from(ROOMS), st.sampled_from(USERS))
outcomes = st.sampled_from(("ok", "ok", "ok", "lost", "reply lost", "delayed"))
later_outcomes = st.sampled_from(("ok", "ok", "ok", "later", "lost", "reply lost", "delayed"))
index = st.integers(0, 100)


class Step(NamedTuple):
    """One call of the store. ``incarnation`` is the one on whose behalf, if that matters."""

    kind: str
    incarnation: str | None
    call: Callable[[], Coroutine[Any, Any, Any]]


@dataclass
class Node:
    name: str
    store: PresenceStore
    share: Share = field(default_factory=Share)
    paused: bool = False
    joined: bool = False
    connections: Counter[Entity] = field(default_factory=Counter)
    jobs: list[tuple[str, list[Entity]]] = field(default_factory=list)
    """(dead incarnation to reap, or '' for grace; the page named by the last call)"""
    followers: dict[str | None, Follower] = field(default_factory=lambda: {room: Follower() for room in ROOMS})
    inbox: list[tuple[str, Any]] = field(default_factory=list)
    lossy: bool = False


@dataclass
class Knowledge:
    """What the machine remembers of the past, to judge the present. Rolled back together with the data."""

    beat_at: int = 0
    stalled_at: int = 0
    stepped: bool = False
    renewed: dict[str, int] = field(default_factory=dict)
    absent: dict[Entity, int] = field(default_factory=dict)

    def copy(self) -> Knowledge:
        return Knowledge(self.beat_at, self.stalled_at, self.stepped, dict(self.renewed), dict(self.absent))


class PresenceMachine(RuleBasedStateMachine):
    """``make_world`` is set by the tests."""

    make_world: Callable[[], World]

    def __init__(self) -> None:
        super().__init__()
        self.world = type(self).make_world()
        self.true_ms = self.clock_ms = START_MS
        self.world.set_clock(START_MS)
        self.state = self.world.state()
        self.nodes: list[Node] = []
        self.delayed: list[Step] = []
        self.saved: tuple[object, Knowledge] | None = None
        self.past = Knowledge()
        self.scopes: dict[str | None, tuple[bytes, int, set[str]]] = {}
        self.epochs_used: set[tuple[str | None, bytes]] = set()
        self.names = itertools.count(1)

    # One step at a time

    def run(self, step: Step) -> Any:
        before = self.state
        result = drive(step.call())
        self.state = self.world.state()
        if step.kind in ("apply", "heartbeat") and step.incarnation not in before.nodes:
            assert self.state == before, "I4: a fenced incarnation changed something"
        if not before.opened and self.state.opened:
            self.past.beat_at, self.past.stalled_at = self.clock_ms, 0
        if isinstance(result, Beat) and result.status in ("OK", "ROLLBACK"):
            if not self.past.beat_at <= self.clock_ms <= self.past.beat_at + LEASE_MS / 2:
                self.past.stalled_at = self.clock_ms
            self.past.beat_at, self.past.stepped = self.clock_ms, False
        if step.kind == "heartbeat":
            for name in before.nodes.keys() - self.state.nodes.keys():
                assert self.true_ms - self.past.renewed[name] >= LEASE_MS, "a live node was taken for dead"
                assert self.clock_ms >= self.past.stalled_at + LEASE_MS, "fenced although Redis had stalled"
        for name, seq in self.state.seqs.items():
            assert seq >= before.seqs.get(name, 0), "a late batch was applied"
        if step.incarnation in self.state.nodes and (step.kind == "register" or isinstance(result, Beat)):
            self.past.renewed[step.incarnation] = self.true_ms
        self.look()
        return result

    def look(self) -> None:
        """The invariants of every moment, and what went out since the last look."""
        for channel, change in self.world.changes():
            room = None if channel == "presence" else channel.removeprefix("room:")
            self.transition(room, change)
            for node in self.nodes:
                node.inbox.append((channel, change))
        state = self.state
        assert state.shares.keys() <= state.nodes.keys() | state.dead, "I1: a share of nobody"
        assert not state.nodes.keys() & state.dead
        totals = Counter[Entity]()
        for share in state.shares.values():
            assert all(count > 0 for count in share.values())
            totals.update(share)
        held = {Entity(room, user): n for room, scope in state.scopes.items() for user, n in scope.totals.items()}
        assert {entity: n for entity, n in held.items() if n} == totals, "I1: totals are the sum of the shares"
        assert {entity for entity, n in held.items() if not n} == state.grace.keys(), "I2: nobody is left without grace"
        seen = {room: (scope.epoch, scope.version, set(scope.totals)) for room, scope in state.scopes.items()}
        assert seen == self.scopes, "I3: the visible sets are what the changes told"
        self.past.absent = {entity: self.past.absent.get(entity, self.true_ms) for entity in state.grace}

    def transition(self, room: str | None, change: Any) -> None:
        epoch, version, users = self.scopes.get(room, (b"", 0, set()))
        if change.epoch != epoch:
            assert not users and change.version == 1, "I3: an epoch begins at version 1 where nobody is"
            assert (room, change.epoch) not in self.epochs_used, "I3: an epoch came back"
            self.epochs_used.add((room, change.epoch))
        else:
            assert change.version == version + 1, "I3: versions are contiguous"
        assert (change.user in users) != change.online, "I3: on and off alternate"
        if not change.online:
            absent_ms = self.true_ms - self.past.absent[Entity(room, change.user)]
            assert absent_ms >= GRACE_MS, "I6: told offline within the grace period"
            assert self.clock_ms >= self.past.stalled_at + GRACE_MS, "I6: told offline although Redis had stalled"
        users ^= {change.user}
        self.scopes[room] = (change.epoch, change.version, users)
        if not users:
            del self.scopes[room]

    def execute(self, step: Step, outcome: str) -> tuple[bool, Any]:
        """(whether the node got an answer, the answer)"""
        if outcome == "delayed":
            self.delayed.append(step)
        if outcome in ("lost", "delayed"):
            return False, None
        result = self.run(step)
        return outcome == "ok", result

    # Nodes

    @property
    def running(self) -> list[Node]:
        return [node for node in self.nodes if not node.paused]

    def pick(self, number: int) -> Node:
        return self.running[number % len(self.running)]

    def advance_node(self, node: Node, outcome: str) -> bool:
        """The next thing its reporter would send. False if there is nothing."""
        share, store = node.share, node.store
        if share.incarnation is None:
            name = f"{node.name}:{next(self.names)}"
            answered, _ = self.execute(Step("register", name, lambda: store.register(name)), outcome)
            if answered:
                share.begin(name)
                if node.joined:
                    self.verify(node)
                node.joined = True
            return True
        batch = share.next_batch(MAX_BATCH)
        if batch is not None:
            answered, applied = self.execute(Step("apply", batch.incarnation, lambda: store.apply(batch)), outcome)
            if not answered:
                share.unknown(batch)
            elif applied.status == "OK":
                share.confirmed(batch)
            else:
                share.refused(batch.incarnation, applied.status)
            return True
        if share.former:
            former = share.former[0]
            answered, _ = self.execute(Step("fence", None, lambda: store.fence(former)), outcome)
            if answered:
                share.ended(former)
            return True
        return False

    def beat(self, node: Node, outcome: str) -> None:
        share, store = node.share, node.store
        name, acked = share.incarnation, share.acked
        if name is None:
            return
        step = Step("heartbeat", name, lambda: store.heartbeat(name, acked, b"nonce"))
        answered, beat = self.execute(step, outcome)
        if answered and beat.status == "OK":
            node.jobs = [(dead, []) for dead in beat.dead] + [("", beat.expired)]
        elif answered:
            share.refused(name, beat.status)

    def work(self, node: Node, outcome: str) -> bool:
        """The next page of what the heartbeat found. False if there is none."""
        if not node.jobs:
            return False
        (dead, page), store = node.jobs.pop(0), node.store
        call = (lambda: store.reap(dead, page)) if dead else (lambda: store.expire(page))
        answered, rest = self.execute(Step("reap" if dead else "expire", None, call), outcome)
        if answered and rest.entities:
            node.jobs.insert(0, (dead, rest.entities))
        return True

    def verify(self, node: Node) -> None:
        """Read all rosters, as after every event of a subscription."""
        for room, follower in node.followers.items():
            self.read(node, room, follower)

    def read(self, node: Node, room: str | None, follower: Follower) -> None:
        roster = drive(node.store.roster(room))
        follower.replace(roster, settling=roster.settling_s > 0)

    def deliver(self, node: Node) -> None:
        inbox, node.inbox = node.inbox, []
        for channel, change in inbox:
            room = None if channel == "presence" else channel.removeprefix("room:")
            if node.followers[room].apply(change) == "behind":
                self.read(node, room, node.followers[room])

    def reconnect(self, node: Node) -> None:
        node.inbox.clear()
        node.lossy = False
        self.verify(node)

    def settle(self, node: Node) -> None:
        """Let it say all it has to say."""
        while self.advance_node(node, "ok"):
            pass

    # Rules

    @initialize()
    def begin(self) -> None:
        self.start()

    @precondition(lambda self: len(self.nodes) < MAX_NODES)
    @rule()
    def start(self) -> None:
        node = Node(name := f"n{next(self.names)}", self.world.store(name))
        self.nodes.append(node)
        self.verify(node)
        self.settle(node)

    @precondition(lambda self: self.nodes)
    @rule(number=index)
    def kill(self, number: int) -> None:
        self.nodes.pop(number % len(self.nodes))

    @precondition(lambda self: self.running)
    @rule(number=index)
    def leave(self, number: int) -> None:
        node = self.pick(number)
        self.nodes.remove(node)
        if node.share.incarnation is not None:
            name, store = node.share.incarnation, node.store
            self.run(Step("fence", None, lambda: store.fence(name)))

    @precondition(lambda self: self.running)
    @rule(number=index)
    def pause(self, number: int) -> None:
        self.pick(number).paused = True

    @precondition(lambda self: len(self.running) < len(self.nodes))
    @rule(number=index)
    def resume(self, number: int) -> None:
        paused = [node for node in self.nodes if node.paused]
        paused[number % len(paused)].paused = False

    @precondition(lambda self: self.running)
    @rule(number=index, entity=entities, outcome=later_outcomes)
    def open(self, number: int, entity: Entity, outcome: str) -> None:
        self.connect(self.pick(number), entity, 1, outcome)

    @precondition(lambda self: any(node.connections for node in self.running))
    @rule(number=index, outcome=later_outcomes)
    def close(self, number: int, outcome: str) -> None:
        held = [(node, entity) for node in self.running for entity in node.connections]
        self.connect(*held[number % len(held)], -1, outcome)

    @precondition(lambda self: any(node.connections for node in self.running))
    @rule(number=index, ms=st.sampled_from((1, GRACE_MS // 2, GRACE_MS - 1)))
    def flap(self, number: int, ms: int) -> None:
        """Away for less than the grace period, and back on another node perhaps."""
        held = [(node, entity) for node in self.running for entity in node.connections]
        node, entity = held[number % len(held)]
        self.connect(node, entity, -1, "ok")
        self.advance(ms)
        self.connect(self.pick(number + 1), entity, 1, "ok")

    @precondition(lambda self: any(node.connections for node in self.running))
    @rule(number=index, again=st.booleans())
    def return_late(self, number: int, again: bool) -> None:
        """Away until somebody is about to tell it, and back in that very moment; and perhaps away again."""
        held = [(node, entity) for node in self.running for entity in node.connections]
        node, entity = held[number % len(held)]
        for _ in range(node.connections[entity]):
            self.connect(node, entity, -1, "ok")
        self.heartbeats(1 + GRACE_MS // TICK_MS)
        self.connect(self.pick(number + 1), entity, 1, "ok")
        if again:
            self.connect(self.pick(number + 1), entity, -1, "ok")
        self.work(node, "ok")
        self.work(node, "ok")

    @precondition(lambda self: self.running)
    @rule(number=index, lost=entities, entity=entities, busy=st.booleans())
    def roll_back_in_work(self, number: int, lost: Entity, entity: Entity, busy: bool) -> None:
        """The last batch is gone; a busy node sends the next one before a heartbeat could notice."""
        self.lose_data("save")
        self.connect(self.pick(number), lost, 1, "ok")
        self.lose_data("rollback")
        if busy:
            self.connect(self.pick(number), entity, 1, "ok")
        else:
            self.quiet()

    @precondition(lambda self: self.running)
    @rule(number=index, entity=entities, difference=st.sampled_from((1, 0)))
    def overtake(self, number: int, entity: Entity, difference: int) -> None:
        """A batch is on its way for so long that the next ones are there before it."""
        self.connect(self.pick(number), entity, 1, "delayed")
        self.settle(self.pick(number))
        self.connect(self.pick(number), entity, difference, "ok")
        self.release(-1)

    def connect(self, node: Node, entity: Entity, difference: int, outcome: str) -> None:
        node.connections[entity] += difference
        node.share.set_count(entity, node.connections[entity])
        node.connections += Counter()
        if outcome != "later":
            self.advance_node(node, outcome)

    @precondition(lambda self: self.running)
    @rule(number=index, outcome=outcomes)
    def send(self, number: int, outcome: str) -> None:
        self.advance_node(self.pick(number), outcome)

    @precondition(lambda self: self.running)
    @rule()
    def settle_all(self) -> None:
        for node in self.running:
            self.settle(node)

    @precondition(lambda self: self.running)
    @rule(number=index, outcome=outcomes)
    def heartbeat(self, number: int, outcome: str) -> None:
        self.beat(self.pick(number), outcome)

    @precondition(lambda self: any(node.jobs for node in self.running))
    @rule(number=index, outcome=outcomes)
    def maintain(self, number: int, outcome: str) -> None:
        busy = [node for node in self.running if node.jobs]
        self.work(busy[number % len(busy)], outcome)

    @precondition(lambda self: self.delayed)
    @rule(number=index)
    def release(self, number: int) -> None:
        if self.delayed:
            self.run(self.delayed.pop(number % len(self.delayed)))

    @rule(ms=st.sampled_from((1, HEARTBEAT_MS, LEASE_MS // 2 + 1, GRACE_MS, LEASE_MS, LEASE_MS + HEARTBEAT_MS)))
    def advance(self, ms: int) -> None:
        self.true_ms += ms
        self.clock_ms += ms
        self.world.set_clock(self.clock_ms)

    @rule(ticks=st.integers(1, 5))
    def heartbeats(self, ticks: int) -> None:
        """Some normal life: time passes, heartbeats come, but nobody has time for more."""
        for _ in range(ticks):
            self.advance(TICK_MS)
            for node in self.running:
                self.beat(node, "ok")

    @precondition(lambda self: self.world.clock_can_step and not self.past.stepped)
    @rule(ms=st.sampled_from((-30_000, -1000, 30_000)))
    def step_clock(self, ms: int) -> None:
        self.past.stepped = True
        self.clock_ms += ms
        self.world.set_clock(self.clock_ms)

    @rule(what=st.sampled_from(("save", "save", "rollback", "rollback", "flush")))
    def lose_data(self, what: str) -> None:
        """Redis restarts from an old dump, and every subscription begins anew; or FLUSHALL, and none does."""
        if what == "save":
            self.saved = self.world.save(), self.past.copy()
        elif what == "flush":
            self.world.flush()
            self.take_over(Knowledge())
        elif self.saved is not None:
            self.world.rollback(self.saved[0])
            self.take_over(self.saved[1].copy())
            for node in self.nodes:
                self.reconnect(node)

    @precondition(lambda self: self.running)
    @rule(number=index)
    def lose_data_in_peace(self, number: int) -> None:
        """FLUSHALL among live nodes: in whatever order they notice, nobody is ever told to have gone who has not."""
        self.quiet()
        self.lose_data("flush")
        for _ in range(2):
            for node in self.running[number % len(self.running) :] + self.running[: number % len(self.running)]:
                self.verify(node)
                self.beat(node, "ok")
                self.settle(node)
                self.deliver(node)
                for room, follower in node.followers.items():
                    here = {entity.user for each in self.running for entity in each.connections if entity.room == room}
                    assert here <= follower.users, "told to have gone while the others say everything again"

    def take_over(self, past: Knowledge) -> None:
        past.stepped = self.past.stepped
        self.past, self.state = past, self.world.state()
        self.scopes = {r: (scope.epoch, scope.version, set(scope.totals)) for r, scope in self.state.scopes.items()}
        self.look()

    @precondition(lambda self: any(node.inbox for node in self.running))
    @rule(number=index, count=st.integers(1, 3), what=st.sampled_from(("receive", "repeat", "lose", "reconnect")))
    def subscription(self, number: int, count: int, what: str) -> None:
        """Changes arrive, come twice, or are lost, which only happens when the connection breaks."""
        readers = [node for node in self.running if node.inbox]
        node = readers[number % len(readers)]
        if what == "receive":
            self.deliver(node)
        elif what == "repeat":
            node.inbox += node.inbox[-count:]
        elif what == "lose":
            del node.inbox[-count:]
            node.lossy = True
        else:
            self.reconnect(node)

    @precondition(lambda self: self.running)
    @rule()
    def quiet(self) -> None:
        """LEASE + 3 heartbeats + grace without faults: everything is exact."""
        end = self.true_ms + QUIET_MS
        while self.true_ms < end:
            self.advance(TICK_MS)
            for node in self.running:
                self.settle(node)
                self.beat(node, "ok")
                self.settle(node)
                while self.work(node, "ok"):
                    pass
        want = Counter[Entity]()
        for node in self.running:
            want.update(node.connections)
        visible = {Entity(room, user) for room, scope in self.state.scopes.items() for user in scope.totals}
        assert visible == want.keys(), "I5: exactly the users with a connection"
        assert self.state.dead == set() and not self.state.grace, "I5: nothing is left to do"
        assert self.state.nodes.keys() == {node.share.incarnation for node in self.running}, "I5: only live nodes"
        for node in self.running:
            name = node.share.incarnation
            assert name is not None
            assert self.state.shares.get(name, {}) == dict(node.connections), "I5: each share is its node's table"
        for node in self.running:
            self.deliver(node)
            if node.lossy:
                self.reconnect(node)
            for room, follower in node.followers.items():
                if follower.doubtful:
                    self.read(node, room, follower)
                expected = {entity.user for entity in want if entity.room == room}
                assert follower.users == expected, "I7: every reader ends with the truth"
                assert not follower.doubtful

    def teardown(self) -> None:
        """I5 and I7 at the end of every run, and then I8: when everybody has gone, nothing is left."""
        for node in self.nodes:
            node.paused = False
        if not self.nodes:
            self.start()
        self.quiet()
        for node in self.nodes:
            for entity in list(node.connections):
                node.share.set_count(entity, 0)
            node.connections.clear()
        self.quiet()
        assert not self.state.scopes and not any(self.state.shares.values()), "I8: nothing is left"
