"""Two presence stores with everything a state machine needs: a clock it moves, a look inside, loss and rollback.

Each step is synchronous: the coroutines of the stores are driven to their end at once.
"""

from __future__ import annotations

import copy
import itertools
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import hiredis
import msgpack

from broker.base import Change
from broker.envelope import decode
from broker.memory_presence import MemoryPresenceStore, PresenceTable
from broker.presence import Entity, PresenceStore
from broker.redis.keys import CLUSTER_SHARDS, Keys, Topic
from broker.redis.presence import Argument, RedisPresenceStore, presence_scripts
from broker.redis.scripts import Script
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer

LEASE_MS, GRACE_MS, HEARTBEAT_MS = 8000, 5000, 2000
PAGE = 2

T = TypeVar("T")


def drive(steps: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits."""
    try:
        steps.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("it waited")


class ScopeState(NamedTuple):
    epoch: bytes
    version: int
    totals: dict[str, int]


class State(NamedTuple):
    """All that a store holds. Leases and grace are deadlines in ms."""

    opened: bool
    nodes: dict[str, int]
    dead: set[str]
    shares: dict[str, dict[Entity, int]]
    seqs: dict[str, int]
    scopes: dict[str | None, ScopeState]
    grace: dict[Entity, int]


class World(Protocol):
    """One store. ``clock_can_step`` tells whether its clock may be set."""

    clock_can_step: bool

    def store(self, node: str) -> PresenceStore: ...
    def set_clock(self, ms: int) -> None: ...
    def state(self) -> State: ...
    def changes(self) -> list[tuple[str, Change]]:
        """What went out since the last call, by broker channel."""

    def flush(self) -> None: ...
    def save(self) -> object: ...
    def rollback(self, saved: Any) -> None: ...


class MemoryWorld:
    clock_can_step = False

    def __init__(self) -> None:
        self._now = 0
        self._sent: list[tuple[str, Change]] = []
        self._table = PresenceTable(lambda: self._now, lambda channel, change: self._sent.append((channel, change)))

    def store(self, node: str) -> PresenceStore:
        # seconds are called milliseconds here: whole numbers compare exactly
        return MemoryPresenceStore(self._table, lambda: None, lease_s=LEASE_MS, grace_s=GRACE_MS, page=PAGE)

    def set_clock(self, ms: int) -> None:
        self._now = ms

    def state(self) -> State:
        table = self._table
        return State(
            table.opened,
            {name: int(lease) for name, lease in table.nodes.items()},
            set(table.dead),
            {name: dict(share.counts) for name, share in table.shares.items()},
            {name: share.seq for name, share in table.shares.items()},
            {room: ScopeState(s.epoch, s.version, dict(s.totals)) for room, s in table.scopes.items()},
            {entity: int(ends) for entity, ends in table.grace.items()},
        )

    def changes(self) -> list[tuple[str, Change]]:
        sent, self._sent = self._sent, []
        return sent

    def flush(self) -> None:
        self._table.clear()

    def save(self) -> object:
        return copy.deepcopy({k: v for k, v in vars(self._table).items() if k not in ("clock", "publish")})

    def rollback(self, saved: Any) -> None:
        vars(self._table).update(copy.deepcopy(saved))


class Wire:
    """The plainest connection there can be: send a command, wait for its reply."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._reader = hiredis.Reader(notEnoughData=...)

    def receive(self) -> Any:
        while (reply := self._reader.gets()) is ...:
            self._reader.feed(self._socket.recv(1 << 20))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def send(self, *arguments: Argument) -> None:
        command: tuple[Any] = arguments  # type: ignore[assignment]  # hiredis means tuple[Any, ...]
        self._socket.sendall(hiredis.pack_command(command))

    def call(self, *arguments: Argument) -> Any:
        self.send(*arguments)
        return self.receive()

    def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        try:
            return self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except hiredis.ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            return self.call("EVAL", script.source, len(keys), *keys, *args)

    def close(self) -> None:
        self._socket.close()


_DUMP = b"""
local all = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local kind = redis.call('TYPE', key).ok
  all[#all + 1] = key
  all[#all + 1] = kind == 'hash' and redis.call('HGETALL', key) or redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
end
return cmsgpack.pack(all)"""
_SAVE = b"""
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do all[#all + 1] = key; all[#all + 1] = redis.call('DUMP', key) end
return all"""

TIME_LINE = "local now = (function() local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) end)()"
PAGE_IN_ORDER = """(function()
  local fields = redis.call('HKEYS', KEYS[3])
  table.sort(fields)
  return { unpack(fields, 1, ARGV[3] + 1) }
end)()"""


class RedisWorld:
    """In database 9 of a server, or on the master of one shard of a cluster; emptied first. ``mutate`` breaks the
    scripts."""

    clock_can_step = True
    _numbers = itertools.count(1)

    def __init__(self, server: RedisServer | RedisCluster, mutate: Callable[[str], str] = str) -> None:
        prefix = f"m{next(self._numbers)}"
        sharded = isinstance(server, RedisCluster)
        self._keys = Keys(prefix, CLUSTER_SHARDS if sharded else 1)
        self._start = self._keys.name(Topic(0, ""))
        self._scripts = presence_scripts(lambda source: mutate(self._testable(source)), sharded=sharded)
        path = server.owner(self._keys.slot(0)).socket if isinstance(server, RedisCluster) else server.socket
        self._wire, self._subscriber = Wire(path), Wire(path)
        if not sharded:
            self._wire.call("SELECT", 9)
        self._wire.call("FLUSHDB")
        self._dump, self._save = (self._wire.call("SCRIPT", "LOAD", source) for source in (_DUMP, _SAVE))
        for channel in ("presence", "room:r"):
            self._subscriber.call("SSUBSCRIBE" if sharded else "SUBSCRIBE", self._start + channel)
        self._ms = 0

    def _testable(self, source: str) -> str:
        """The time comes from a key, and chance is taken out: a run has to repeat exactly."""
        assert TIME_LINE in source
        source = source.replace(TIME_LINE, f"local now = tonumber(redis.call('GET', '{self._start}now'))")
        return source.replace("redis.call('HRANDFIELD', KEYS[3], ARGV[3] + 1)", PAGE_IN_ORDER)

    def close(self) -> None:
        self._wire.close()
        self._subscriber.close()

    def store(self, node: str) -> PresenceStore:
        return RedisPresenceStore(
            self._run,
            self._keys,
            node_id=node,
            lease_s=LEASE_MS / 1000,
            grace_s=GRACE_MS / 1000,
            page=PAGE,
            scripts=self._scripts,
        )

    async def _run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        return self._wire.run(script, keys, args)

    def set_clock(self, ms: int) -> None:
        self._ms = ms
        self._wire.call("SET", f"{self._start}now", ms)

    def state(self) -> State:
        start = f"{self._start}presence:"
        found = _pairs(msgpack.unpackb(self._wire.call("EVALSHA", self._dump, 0, start + "*")))
        found = {key.removeprefix(start): _pairs(fields) for key, fields in found.items()}
        meta = found.pop("meta", {})
        state = State(bool(meta), _numbers(found.pop("nodes", {})), set(found.pop("dead", {})), {}, {}, {}, {})
        state.grace.update((_entity(member), ends) for member, ends in _numbers(found.pop("grace", {})).items())
        for key, fields in found.items():
            kind, _, name = key.partition(":")
            if kind == "n":
                state.seqs[name] = int(fields["#"])
                state.shares[name] = {_entity(f): int(c) for f, c in fields.items() if f != "#"}
            else:
                epoch, version = fields.pop("e").encode(), int(fields.pop("v"))
                state.scopes[name or None] = ScopeState(epoch, version, _numbers(fields))
        return state

    def changes(self) -> list[tuple[str, Change]]:
        self._subscriber.send("PING", "barrier")
        sent = []
        while (push := self._subscriber.receive())[0] != b"pong":
            channel, item = push[1].decode().removeprefix(self._start), decode(push[2])
            assert isinstance(item, Change)
            sent.append((channel, item))
        return sent

    def flush(self) -> None:
        self._wire.call("FLUSHDB")
        self.set_clock(self._ms)

    def save(self) -> object:
        return self._wire.call("EVALSHA", self._save, 0)

    def rollback(self, saved: Any) -> None:
        self._wire.call("FLUSHDB")
        for key, value in zip(saved[::2], saved[1::2], strict=True):
            self._wire.call("RESTORE", key, 0, value)
        self.set_clock(self._ms)


def _pairs(flat: list[Any]) -> dict[str, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _numbers(fields: dict[str, str]) -> dict[str, int]:
    return {name: int(value) for name, value in fields.items()}


def _entity(text: str) -> Entity:
    room, _, user = text.partition(" ")
    return Entity(room or None, user)
