"""What nodes in one process share: what Redis is to the other broker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol
from weakref import WeakValueDictionary

from broker.base import Item
from broker.memory_log import Logs
from broker.memory_presence import PresenceTable

_buses: WeakValueDictionary[str, MemoryBus] = WeakValueDictionary()


class BusNode(Protocol):
    """What the bus does to a node (:class:`broker.memory.MemoryBroker`)."""

    def receive(self, channel: str, item: Item) -> None: ...
    def disappear(self) -> None: ...
    def interrupt(self, reason: str) -> None: ...
    def restore(self) -> None: ...


class MemoryBus:
    """Channels, logs, presence and the descriptions of the nodes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.logs = Logs()
        self.presence = PresenceTable(clock, self.publish)
        self.nodes: dict[str, tuple[dict[str, object], float]] = {}
        self._subscribers: dict[str, dict[BusNode, None]] = {}

    @classmethod
    def named(cls, name: str) -> MemoryBus:
        """The bus of that name in this process; it lives as long as a broker uses it."""
        bus = _buses.get(name)
        if bus is None:
            bus = _buses[name] = cls()
        return bus

    def subscribers(self, channel: str) -> int:
        return len(self._subscribers.get(channel, ()))

    def subscribe(self, broker: BusNode, channel: str) -> None:
        self._subscribers.setdefault(channel, {})[broker] = None

    def unsubscribe(self, broker: BusNode, channel: str) -> None:
        subscribers = self._subscribers.get(channel)
        if subscribers is not None:
            subscribers.pop(broker, None)
            if not subscribers:
                del self._subscribers[channel]

    def publish(self, channel: str, item: Item) -> None:
        """Queue for all subscribers; each gets it in a later tick."""
        for broker in self._subscribers.get(channel, ()):
            broker.receive(channel, item)

    def kill(self, broker: BusNode) -> None:
        """``kill -9`` of a node: it says no goodbye; what it had not delivered yet is lost with it."""
        broker.disappear()

    def interrupt(self, broker: BusNode, reason: str) -> None:
        """Cut one node off: what is published meanwhile it misses, what it asks fails. Ends with ``restore``."""
        broker.interrupt(reason)

    def restore(self, broker: BusNode) -> None:
        broker.restore()
