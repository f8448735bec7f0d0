"""A room's log in memory, with the semantics of redis/lua/append.lua and read.lua. Pure: time comes in as argument."""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import islice

from broker.base import Dedup, Entry, History, Mark, Page, Position, Status

NO_TAG = b"0"
META_TTL_S = 30 * 24 * 3600.0
EMPTY_META_TTL_S = 3600.0
TRIM_SLACK = 128


class Log:
    """One room: epoch, top and bounded entries. ``expires_s`` is when even the epoch is forgotten."""

    __slots__ = ("bytes", "entries", "entries_expire_s", "epoch", "expires_s", "marks", "offset", "tag")

    def __init__(self, epoch: bytes, now_s: float) -> None:
        self.epoch = epoch
        self.offset = 0
        self.tag = NO_TAG
        self.entries: deque[Entry] = deque()
        self.bytes = 0
        self.entries_expire_s = 0.0
        self.expires_s = now_s + EMPTY_META_TTL_S
        self.marks: dict[str, tuple[Mark, float]] = {}
        """With the time of the last advance, in that order."""

    @property
    def top(self) -> Position:
        return Position(self.epoch, self.offset, self.tag)

    def append(self, payload: bytes, tag: bytes, history: History, now_s: float) -> Entry:
        self.expire(now_s)
        self.offset += 1
        entry = Entry(self.epoch, self.offset, self.tag, tag, payload)
        self.tag = tag
        self.expires_s = now_s + max(META_TTL_S, 2 * history.ttl_s)
        if history.max_entries == 0:
            self.forget_entries()
            return entry
        self.entries.append(entry)
        self.bytes += len(payload)
        self.entries_expire_s = now_s + history.ttl_s
        if len(self.entries) > history.max_entries + TRIM_SLACK:
            while len(self.entries) > history.max_entries:
                self._drop_oldest()
        while self.bytes > history.max_bytes:
            self._drop_oldest()
        return entry

    def read(self, since: int | None, limit: int, now_s: float) -> Page:
        self.expire(now_s)
        if self.offset == 0:
            self.expires_s = now_s + EMPTY_META_TTL_S
        if since is None:
            return Page(self.top, [])
        first = self.offset - len(self.entries) + 1
        start = max(0, since + 1 - first)
        return Page(self.top, [self.entries[i] for i in range(start, min(start + limit, len(self.entries)))])

    def advance(self, user: str, status: Status, offset: int, max_marks: int, now_s: float) -> bool:
        """Whether the mark moved: the maximum wins, and the log must have come so far."""
        if offset > self.offset:
            return False
        old, _ = self.marks.get(user, (Mark(user, 0, 0), 0.0))
        new = Mark(user, max(old.delivered, offset), max(old.read, offset) if status == "read" else old.read)
        if new == old:
            return False
        self.marks.pop(user, None)
        self.marks[user] = new, now_s
        if len(self.marks) > max_marks:
            for away in tuple(islice(self.marks, len(self.marks) - int(max_marks * 0.9))):
                del self.marks[away]
        return True

    def expire(self, now_s: float) -> None:
        if self.entries and now_s >= self.entries_expire_s:
            self.forget_entries()

    def forget_entries(self) -> None:
        self.entries.clear()
        self.bytes = 0

    def _drop_oldest(self) -> None:
        self.bytes -= len(self.entries.popleft().payload)


class Logs:
    """The logs of all rooms and the retry keys."""

    SWEEP_EVERY = 1024

    def __init__(self) -> None:
        self._logs: dict[str, Log] = {}
        self._dedup: OrderedDict[tuple[str, str, str], tuple[Position, float]] = OrderedDict()
        self._opened = 0

    def append(
        self,
        room: str,
        payload: bytes,
        *,
        tag: bytes,
        epoch: bytes,
        history: History,
        dedup: Dedup | None,
        dedup_ttl_s: float,
        now_s: float,
    ) -> tuple[Position, Entry | None]:
        """The position and the entry to deliver; no entry if this was a repetition."""
        self._expire_dedup(now_s)
        log = self.open(room, epoch, now_s)
        if dedup is not None:
            known = self._dedup.get((room, dedup.sender, dedup.key))
            if known is not None and known[0].epoch == log.epoch:
                return known[0], None
        entry = log.append(payload, tag, history, now_s)
        if dedup is not None:
            key = (room, dedup.sender, dedup.key)
            self._dedup[key] = (log.top, now_s + dedup_ttl_s)
            self._dedup.move_to_end(key)
        return log.top, entry

    def open(self, room: str, epoch: bytes, now_s: float) -> Log:
        """The room's log; a new one with ``epoch`` if there is none."""
        log = self.find(room, now_s)
        if log is None:
            log = self._logs[room] = Log(epoch, now_s)
            self._opened += 1
            if self._opened % self.SWEEP_EVERY == 0:
                for name in [name for name, old in self._logs.items() if now_s >= old.expires_s]:
                    del self._logs[name]
        return log

    def find(self, room: str, now_s: float) -> Log | None:
        log = self._logs.get(room)
        if log is not None and now_s >= log.expires_s:
            del self._logs[room]
            return None
        return log

    def forget_user(self, user: str) -> int:
        """Remove the user's marks. Returns in how many rooms there was one."""
        return sum(log.marks.pop(user, None) is not None for log in self._logs.values())

    def clear(self) -> None:
        """Everything is lost, as after FLUSHALL."""
        self._logs.clear()
        self._dedup.clear()

    def _expire_dedup(self, now_s: float) -> None:
        while self._dedup:
            key, (_, expires_s) = next(iter(self._dedup.items()))
            if now_s < expires_s:
                return
            del self._dedup[key]
