"""The subscriber side of one master: what of the wanted channels Redis has confirmed, and what arrives.

Everything here is synchronous but for the waiting of callers. Redis answers SUBSCRIBE and UNSUBSCRIBE per channel and
in order, so one line of expected answers tells which call each belongs to. On a cluster a master also says by itself
that a channel is not its own any more: an unsubscription that nobody asked for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from itertools import groupby
from typing import NamedTuple

from broker.base import Delivery, Sink, Unavailable
from broker.base import Probe as Returned
from broker.envelope import NewerVersion, decode
from broker.options import BrokerOptions
from broker.pace import Pace
from broker.redis.connection import Connection, Reply
from broker.redis.errors import MOVED, ConnectionLost, first_word
from broker.redis.keys import Keys, Topic
from broker.redis.probe import Probe
from broker.redis.wanted import SUBSCRIBE, UNSUBSCRIBE, Wanted, fail
from broker.stats import BrokerStats

MAX_CHANNELS_PER_COMMAND = 500
PING = "ping"


class _Step(NamedTuple):
    """One answer that is to come."""

    kind: str
    topic: Topic
    name: bytes
    future: asyncio.Future[None]


class Subscriber:
    """Serves the shards it is given. ``on_moved`` is called when a channel turns out to be elsewhere."""

    def __init__(
        self, keys: Keys, sink: Sink, options: BrokerOptions, stats: BrokerStats, on_moved: Callable[[str], None]
    ) -> None:
        self.reason = "not connected yet"
        self._keys = keys
        self._sink = sink
        self._options = options
        self._stats = stats
        self._on_moved = on_moved
        sharded = keys.shards > 1
        self._message = b"smessage" if sharded else b"message"
        self._commands = {kind: b"s" * sharded + kind.encode() for kind in (SUBSCRIBE, UNSUBSCRIBE)}
        self._answers = {**self._commands, PING: b"pong"}
        self._connection: Connection | None = None
        self._attaching = False
        self._shards: dict[int, Wanted] = {}
        self._topics: dict[bytes, Topic] = {}
        """Redis channel -> what it is, of those that are wanted and confirmed."""
        self._outbox: list[_Step] = []
        self._pace = Pace()
        self._flushing = False
        """The outbox goes out in the next tick."""
        self._expected: deque[tuple[_Step, int]] = deque()
        self._sent = 0
        self._refused: Exception | None = None
        self._astray = False
        """Something is wanted here that this master said is elsewhere."""
        self._probe: Probe | None = None

    # For the shards

    def take(self, wanted: Wanted) -> None:
        """Serve one more shard."""
        self._shards[wanted.shard] = wanted
        wanted.carrier = self
        self._subscribe_all([wanted])

    def give_up(self, wanted: Wanted) -> None:
        """Another master serves it from now on: what is still to be answered here means nothing to it."""
        del self._shards[wanted.shard]
        wanted.carrier = None
        for name in [name for name, topic in self._topics.items() if topic.shard == wanted.shard]:
            del self._topics[name]
        wanted.lose_all()

    def reconcile(self) -> None:
        """Who has which slot was looked up again: ask again for what was refused because of that."""
        if self._astray:
            self._astray = False
            self._subscribe_all(self._shards.values())

    def forget(self, topic: Topic) -> None:
        self._topics.pop(self._keys.name(topic).encode(), None)

    def send(self, kind: str, topic: Topic, future: asyncio.Future[None]) -> bool:
        """With all others of this tick. Nobody waits for the end of a subscription, nor a connection for its user's
        channel: in a storm they wait for company. False without a connection (attach subscribes what is wanted)."""
        if self._connection is None:
            return False
        loop = asyncio.get_running_loop()
        patient = kind == UNSUBSCRIBE or topic.channel.startswith("user:")
        wait_s = self._pace.wait_s(loop.time()) if patient and not self._outbox else 0.0
        if wait_s:
            loop.call_later(wait_s, self._flush)
        elif not self._flushing and not (patient and self._outbox):
            self._flushing = True
            loop.call_soon(self._flush)
        self._outbox.append(_Step(kind, topic, self._keys.name(topic).encode(), future))
        return True

    def doubt(self, shard: int) -> None:
        """Redis has lost data, or this node was away for too long: whatever is subscribed has to be verified."""
        wanted = self._shards.get(shard)
        if wanted is not None:
            channels = [c for c, future in wanted.confirmed.items() if future.done() and c != wanted.node_channel]
            if channels:
                self._sink.resubscribed(channels)

    # For the link

    async def attach(self, connection: Connection) -> list[str]:
        """Subscribe all wanted channels on a new connection and return those it had been told of before, once all are
        confirmed. Raises :class:`Unavailable`."""
        self._connection = connection
        self._refused = None
        self._attaching = True
        connection.on_push = self._on_push
        self._subscribe_all(self._shards.values())
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outbox.append(_Step(PING, Topic(-1, ""), b"", confirmed))
        self._flush()
        count = sum(len(wanted.confirmed) for wanted in self._shards.values())
        try:
            async with asyncio.timeout(self._options.connect_timeout_s + count / 1000):
                await confirmed
        except TimeoutError:
            raise Unavailable("Redis does not confirm subscriptions") from None
        except ConnectionLost as error:
            raise Unavailable(f"the subscriber connection is lost: {error}") from error
        finally:
            self._attaching = False
        if self._refused is not None:
            raise Unavailable(f"Redis refuses subscriptions: {self._refused}") from self._refused
        self.reason = ""
        return self._regained()

    def detach(self, reason: str) -> None:
        """The connection is gone: nothing is confirmed any more, everything stays wanted."""
        self._connection = None
        self.reason = reason
        self._topics.clear()
        if self._probe is not None:
            self._probe.lost(reason)
        for step in [step for step, _ in self._expected] + self._outbox:
            if step.kind == PING:
                fail(step.future, ConnectionLost(reason))
            elif step.kind == UNSUBSCRIBE and not step.future.done():
                step.future.set_result(None)
        self._expected.clear()
        self._outbox.clear()
        for wanted in self._shards.values():
            wanted.lose_all()

    def expect_probe(self, nonce: bytes) -> Probe:
        """The way back of this nonce; of the ones before nothing is known any more."""
        self._probe = probe = Probe(nonce)
        if self._connection is None:
            probe.lost(self.reason)
        return probe

    # Commands

    def _subscribe_all(self, shards: Collection[Wanted]) -> None:
        """All that is not confirmed and not asked for already."""
        asked = {id(step.future) for step, _ in self._expected} | {id(step.future) for step in self._outbox}
        for wanted in shards:
            if wanted.node_channel not in wanted.confirmed:
                wanted.want(wanted.node_channel)
            for channel, future in wanted.confirmed.items():
                if not future.done() and id(future) not in asked:
                    self.send(SUBSCRIBE, Topic(wanted.shard, channel), future)

    def _flush(self) -> None:
        self._flushing = False
        if self._connection is None or self._connection.closed:
            return
        outbox, self._outbox = self._outbox, []
        for (kind, _), group in groupby(outbox, key=lambda step: (step.kind, step.topic.shard)):
            steps = list(group)
            for start in range(0, len(steps), MAX_CHANNELS_PER_COMMAND):
                part = steps[start : start + MAX_CHANNELS_PER_COMMAND]
                self._sent += 1
                self._expected.extend((step, self._sent) for step in part)
                if kind == PING:
                    self._connection.write((b"PING",))
                else:  # never without a channel: a bare UNSUBSCRIBE would drop them all
                    self._connection.write((self._commands[kind], *(step.name for step in part)))

    # What arrives

    def _on_push(self, pushes: list[Reply]) -> None:
        batch: list[Delivery] = []
        answered = False
        topics, message = self._topics, self._message
        for push in pushes:
            if type(push) is list and push[0] == message:
                topic = topics.get(push[1])
                if topic is None:
                    continue
                try:
                    item = decode(push[2])
                except NewerVersion:
                    self._stats.newer += 1
                    self._deliver(batch)
                    batch = []
                    self._sink.resubscribed([topic.channel])
                    continue
                except ValueError:
                    self._stats.foreign += 1
                    continue
                if isinstance(item, Returned):
                    if self._probe is not None:
                        self._probe.returned(item.nonce, topic[0])
                else:
                    batch.append((topic[1], item))
            else:
                answered = True
                self._confirmed(push)
        self._deliver(batch)
        if answered and not self._attaching and (regained := self._regained()):
            self._sink.resubscribed(regained)

    def _deliver(self, batch: list[Delivery]) -> None:
        if batch:
            self._stats.deliveries += len(batch)
            self._sink.deliver(batch)

    def _regained(self) -> list[str]:
        channels = (channel for wanted in self._shards.values() if wanted.broken for channel in wanted.regained())
        return list(dict.fromkeys(channels))

    def _confirmed(self, push: Reply) -> None:
        """The answer to the oldest step. A protocol that disagrees ends the connection (an exception here)."""
        if push == b"PONG":  # on a connection without any channel
            push = [b"pong", b""]
        if type(push) is list and push[0] == b"sunsubscribe" and not self._is_expected(push[1]):
            self._lost(push[1])
            return
        if isinstance(push, Exception) and self._is_left_over(push):
            return
        step, command = self._expected.popleft()
        if isinstance(push, Exception):  # one error for the whole command
            self._stats.errors += 1
            steps = [step]
            while self._expected and self._expected[0][1] == command:
                steps.append(self._expected.popleft()[0])
            self._refuse(steps, push)
            return
        if push[0] != self._answers[step.kind] or (step.kind != PING and push[1] != step.name):
            raise ConnectionLost(f"expected {step.kind} {step.name!r}, got {push[:2]!r}")
        if step.kind == SUBSCRIBE:
            if not self._is_wanted(step):
                return  # unsubscribed meanwhile, and its answer follows; or moved to another master
            self._topics[step.name] = step.topic
        if not step.future.done():
            step.future.set_result(None)

    def _is_wanted(self, step: _Step) -> bool:
        wanted = self._shards.get(step.topic.shard)
        return wanted is not None and wanted.confirmed.get(step.topic.channel) is step.future

    def _is_expected(self, name: bytes) -> bool:
        return bool(self._expected) and self._expected[0][0].kind == UNSUBSCRIBE and self._expected[0][0].name == name

    def _is_left_over(self, error: Exception) -> bool:
        """An UNSUBSCRIBE that was on its way when the slot moved has had its answer, the unsubscription that nobody
        asked for; what says MOVED then answers nothing that is still expected."""
        word, slot, *_ = [*str(error).split(), "", ""]
        if word != "MOVED":
            return False
        step = self._expected[0][0] if self._expected else None
        return step is None or step.kind == PING or slot != str(self._keys.slot(step.topic.shard))

    def _lost(self, name: bytes) -> None:
        """The slot of this channel has gone to another master."""
        topic = self._topics.pop(name, None)
        if topic is not None:
            self._shards[topic.shard].lose(topic.channel)
            self._astray = True
            self._on_moved(f"the slot of shard {topic.shard} has moved")

    def _refuse(self, steps: list[_Step], error: Exception) -> None:
        moved = first_word(error) in MOVED
        if not moved:
            self._refused = error
        for step in steps:
            if step.kind != SUBSCRIBE:
                if not step.future.done():
                    step.future.set_result(None)
            elif self._is_wanted(step) and not moved:
                refusal = Unavailable(f"Redis refuses the subscription: {error}")
                self._shards[step.topic.shard].refuse(step.topic.channel, step.future, refusal)
        if moved:
            self._astray = True
            self._on_moved(str(error))
