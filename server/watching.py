"""Operators who watch: while somebody does, every node says once a second how it is; otherwise nobody says anything.

The node where an operator's page is connected asks all nodes on ``CONTROL``, again and again as long as somebody
watches there; each answers on the channel of the one that asked. What a node says of itself reaches its own watchers
directly: they see it also when it cannot reach the broker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from broker.base import Unavailable
from server.payload import CONTROL, SampleSignal, WatchSignal, encode_signal
from server.vitals import Sampler

if TYPE_CHECKING:
    from server.hub import LocalHub

EVERY_S = 1.0
ASK_EVERY_S = 3.0
WATCH_S = 10
"""How long a node goes on after it was last asked: the asker may be dead."""
FRESH_S = 3.5
"""A node that said nothing for this long is silent."""
COUNT_SHARE = 0.01
"""Counting who is online reads all of presence, so it may take this part of the time, and comes every ten seconds at
most."""
COUNT_EVERY_S = 10.0


def samples_channel(node_id: str) -> str:
    """Where one node hears how the others are. No request has such a path: they begin with a slash."""
    return f"path:.status:{node_id}"


class Watching:
    """A node's both sides. No task runs, and nothing is kept, while nobody watches."""

    def __init__(self, hub: LocalHub) -> None:
        self._hub = hub
        self._sampler = Sampler(hub)
        self._askers: dict[str, float] = {}
        """Channel -> until when (the loop's clock) its node wants to hear."""
        self._watchers: set[Callable[[bytes], None]] = set()
        self._samples: dict[str, tuple[bytes, float]] = {}
        self._announced: list[dict[str, Any]] | None = None
        """What the broker knows of the nodes; None while it cannot be asked."""
        self._online: int | None = None
        self._running = False
        self._watched = False

    def watch(self, show: Callable[[bytes], None]) -> Callable[[], None]:
        """Call ``show`` with a view (JSON text) once a second, until the function returned here is called."""
        self._watchers.add(show)
        if not self._watched:
            self._watched = True
            self._hub.tasks.spawn(self._follow(), "follow the nodes")
        return lambda: self._watchers.discard(show)

    # Heard.

    def asked(self, signal: WatchSignal) -> None:
        if signal.reply_to != samples_channel(self._hub.broker.node_id):
            self._askers[signal.reply_to] = asyncio.get_running_loop().time() + min(signal.for_s, WATCH_S)
            if not self._running:
                self._running = True
                self._hub.tasks.spawn(self._tell(), "tell operators")

    def told(self, signal: SampleSignal) -> None:
        try:
            sample = orjson.loads(signal.sample)
        except orjson.JSONDecodeError:
            sample = None
        if isinstance(sample, dict) and sample.get("node") == signal.node:
            self._samples[signal.node] = signal.sample, asyncio.get_running_loop().time()
        else:
            self._hub.counts.foreign += 1

    # Said.

    async def _tell(self) -> None:
        try:
            while True:
                now_s = asyncio.get_running_loop().time()
                self._askers = {channel: until_s for channel, until_s in self._askers.items() if until_s > now_s}
                if not self._askers:
                    break
                self._say(self._sampler.sample())
                await asyncio.sleep(EVERY_S)
        except asyncio.CancelledError:  # the node ends: those who watch are to know that it was meant to
            await asyncio.wait(self._say(self._sampler.sample(leaving=True)), timeout=EVERY_S)
            raise
        finally:
            self._running = False

    def _say(self, sample: bytes) -> list[asyncio.Future[None]]:
        said = encode_signal(SampleSignal(self._hub.broker.node_id, sample))
        publishing = [self._hub.broker.publish(channel, said) for channel in self._askers]
        for future in publishing:
            future.add_done_callback(_look)
        return publishing

    async def _follow(self) -> None:
        hub, loop = self._hub, asyncio.get_running_loop()
        channel = samples_channel(hub.broker.node_id)
        subscribed = hub.interest.acquire(channel)
        if subscribed is not None:
            subscribed.add_done_callback(_look)
        ask_s = count_s = loop.time()
        counting: asyncio.Task[None] | None = None
        try:
            while self._watchers:
                if loop.time() >= ask_s:
                    ask_s = loop.time() + ASK_EVERY_S
                    hub.broker.publish(CONTROL, encode_signal(WatchSignal(channel, WATCH_S))).add_done_callback(_look)
                    await self._read_nodes()
                if loop.time() >= count_s and (counting is None or counting.done()):
                    count_s = loop.time() + COUNT_EVERY_S
                    counting = hub.tasks.spawn(self._count(), "count who is online")
                self._show(loop.time())
                await asyncio.sleep(EVERY_S)
        finally:
            self._watched = False
            self._samples.clear()
            hub.interest.release(channel)

    async def _read_nodes(self) -> None:
        try:
            self._announced = await self._hub.broker.nodes()
        except Unavailable:
            self._announced = None

    async def _count(self) -> None:
        started_s = time.monotonic()
        try:
            self._online = len((await self._hub.broker.presence.roster(None)).users)
        except Unavailable:
            self._online = None
        await asyncio.sleep((time.monotonic() - started_s) / COUNT_SHARE)

    def _show(self, now_s: float) -> None:
        hub = self._hub
        self._samples[hub.broker.node_id] = self._sampler.sample(), now_s
        for node, (_, heard_s) in tuple(self._samples.items()):
            if now_s - heard_s > FRESH_S:
                del self._samples[node]
        view = orjson.dumps(
            {
                "at": time.time(),
                "here": hub.broker.node_id,
                "broker": hub.broker.reason if not hub.broker.ready else "",
                "online": self._online if hub.broker.ready else None,
                "announced": None if self._announced is None else [_brief(node) for node in self._announced],
                "nodes": [orjson.Fragment(sample) for sample, _ in self._samples.values()],
            }
        )
        for show in tuple(self._watchers):
            show(view)


def _brief(node: dict[str, Any]) -> dict[str, Any]:
    return {name: node.get(name) for name in ("node", "version", "started")}


def _look(future: asyncio.Future[Any]) -> None:
    """Nobody waits: what fails is said again in a moment."""
    if not future.cancelled():
        future.exception()
