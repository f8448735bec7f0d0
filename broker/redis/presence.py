"""The presence store in Redis: one Lua script per step, all its keys in one hash slot. Theory: broker/presence.py.

Everything of one shard carries the shard's tag. A single Redis has one shard. On a cluster every shard is a store of
its own, with the leases of all nodes: a room is in the shard of its log, a user of everywhere in the shard of the user.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any, Protocol

from broker.base import Roster
from broker.presence import PAGE, Applied, Batch, Beat, Entity, Rest
from broker.redis.keys import Keys, Topic
from broker.redis.scripts import Script, make_script

SCRIPTS = ("register", "apply", "heartbeat", "fence", "reap", "expire", "roster", "online")

Argument = bytes | str | int


class RunScript(Protocol):
    """Runs one script and returns its reply, re-sending the source if Redis has forgotten it. Raises
    :class:`broker.base.Unavailable` if nothing was done, :class:`broker.base.OutcomeUnknown` otherwise."""

    async def __call__(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any: ...


def presence_scripts(rewrite: Callable[[str], str] = str, *, sharded: bool = False) -> dict[str, Script]:
    """The scripts by their short names, each behind the part they share; ``sharded`` as they run on a cluster.
    ``rewrite`` changes the sources: tests read the time from a key and break rules on purpose."""
    folder = files("broker.redis") / "lua"
    common = (folder / "presence_common.lua").read_text()
    sources = {name: f"{common}\n{(folder / f'presence_{name}.lua').read_text()}" for name in SCRIPTS}
    return {name: make_script(f"presence_{name}", rewrite(source), sharded=sharded) for name, source in sources.items()}


class RedisPresenceStore:
    """One shard. See :class:`broker.presence.PresenceStore`."""

    def __init__(
        self,
        run: RunScript,
        keys: Keys,
        *,
        node_id: str,
        lease_s: float,
        grace_s: float,
        shard: int = 0,
        page: int = PAGE,
        scripts: dict[str, Script] | None = None,
    ) -> None:
        self._run = run
        self._keys = keys
        self._node_channel = keys.name(Topic(shard, f"node:{node_id}"))
        self._lease_ms = round(lease_s * 1000)
        self._grace_ms = round(grace_s * 1000)
        self._shard = shard
        self._guard = keys.guard(shard)
        self._page = page
        self._scripts = scripts or presence_scripts(sharded=keys.shards > 1)
        self._meta, self._nodes, self._dead, self._grace = (self._key(k) for k in ("meta", "nodes", "dead", "grace"))

    async def register(self, incarnation: str) -> None:
        await self._call("register", [self._meta, self._nodes], [incarnation, self._lease_ms])

    async def apply(self, batch: Batch) -> Applied:
        scopes = _Scopes(self, (entity for entity, _ in batch.counts))
        args: list[Argument] = [batch.incarnation, batch.seq, batch.acked, self._grace_ms, secrets.token_hex(8)]
        args += scopes.args
        for entity, count in batch.counts:
            args += (scopes.number[entity.room], entity.user, count)
        keys = [self._nodes, self._grace, self._share(batch.incarnation), *scopes.keys]
        status, due_ms = await self._call("apply", keys, args)
        return Applied(_text(status), _seconds(due_ms))

    async def heartbeat(self, incarnation: str, acked: int, nonce: bytes) -> Beat:
        keys = [self._meta, self._nodes, self._dead, self._grace, self._share(incarnation)]
        args: list[Argument] = [incarnation, acked, self._lease_ms, self._grace_ms, self._page]
        status, due_ms, dead, expired = await self._call("heartbeat", keys, [*args, self._node_channel, nonce])
        return Beat(_text(status), _seconds(due_ms), [_text(each) for each in dead], _parse(expired))

    async def fence(self, incarnation: str) -> None:
        await self._call("fence", [self._nodes, self._dead], [incarnation])

    async def reap(self, incarnation: str, entities: Sequence[Entity]) -> Rest:
        scopes = _Scopes(self, entities)
        keys = [self._dead, self._grace, self._share(incarnation), *scopes.keys]
        args = [incarnation, self._grace_ms, self._page, *scopes.args, *scopes.list(entities)]
        due_ms, rest = await self._call("reap", keys, args)
        return Rest(_seconds(due_ms), _parse(rest))

    async def expire(self, entities: Sequence[Entity]) -> Rest:
        scopes = _Scopes(self, entities)
        keys = [self._meta, self._grace, *scopes.keys]
        args = [self._lease_ms, self._grace_ms, self._page, *scopes.args, *scopes.list(entities)]
        due_ms, rest = await self._call("expire", keys, args)
        return Rest(_seconds(due_ms), _parse(rest))

    async def roster(self, room: str | None) -> Roster:
        *flat, settling_ms = await self._call("roster", [self._meta, self.scope(room)], [self._lease_ms])
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        epoch, version = fields.pop(b"e", b""), int(fields.pop(b"v", 0))
        versions = {epoch: version} if epoch else {}
        return Roster(versions, frozenset(map(_text, fields)), settling_ms / 1000)

    async def online(self, user: str) -> bool:
        return bool(await self._call("online", [self.scope(None)], [user]))

    async def _call(self, name: str, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        return await self._run(self._scripts[name], [*keys, *self._guard], args)

    def _key(self, kind: str, name: str = "") -> str:
        return self._keys.presence(self._shard, kind, name)

    def _share(self, incarnation: str) -> str:
        return self._key("n", incarnation)

    def scope(self, room: str | None) -> str:
        """The key of a room, or of everywhere."""
        return self._key("all") if room is None else self._key("room", room)

    def channel(self, room: str | None) -> str:
        """The Redis channel on which a scope's changes go out."""
        return self._keys.name(Topic(self._shard, "presence" if room is None else f"room:{room}"))


class _Scopes:
    """The scopes that one call touches: their keys, their arguments, and a number for each, from 1."""

    def __init__(self, store: RedisPresenceStore, entities: Iterable[Entity]) -> None:
        self.number: dict[str | None, int] = {}
        self.keys: list[str] = []
        self.args: list[Argument] = []
        for room, _ in entities:
            if room not in self.number:
                self.number[room] = len(self.number) + 1
                self.keys.append(store.scope(room))
                self.args += (room or "", store.channel(room))

    def list(self, entities: Iterable[Entity]) -> list[Argument]:
        return [argument for room, user in entities for argument in (self.number[room], user)]


def _text(reply: bytes) -> Any:
    return reply.decode()


def _seconds(ms: int) -> float | None:
    return None if ms < 0 else ms / 1000


def _parse(entities: Iterable[bytes]) -> list[Entity]:
    parts = (entity.decode().partition(" ") for entity in entities)
    return [Entity(room or None, user) for room, _, user in parts]
