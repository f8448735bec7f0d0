"""Who may come in, and when: the caps on connections, and the pace of handshakes in a storm. All before the accept.

A handshake has a :class:`Place` from its arrival until the hub has the connection. Over the node's cap, or an
address's, there is none, and the answer is 503 or 429; over a user's, which is known only after the credentials were
checked, the connection is accepted and closed with 4010, so that a browser can see why.

Below the caps nobody is refused, however many come at once: of all that wait, in the order of their arrival,
``PER_TURN`` begin in one turn of the event loop, so that heartbeats, probes and the connections that are there have
theirs in between. Who waits costs a task and the head of its request.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import resource
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from server.auth import TooManyConnections
from server.buckets import Buckets
from server.connection import Connection
from server.denial import Denied
from server.metrics import Metrics
from server.settings import Settings

PLACE: Final = "roomcast.place"
"""Key in the ASGI scope under which a handshake has its place."""
RESERVED_FILES: Final = 256
"""Of the file limit, for what is no WebSocket: Redis, listening sockets, logs, HTTP, handshakes that are refused."""
MOST_CONNECTIONS: Final = 100_000
"""Where the file limit says more: a node is one core."""
PER_TURN: Final = 16
"""Handshakes begun in one turn of the loop: at about 0.3 ms each nobody waits long for the next turn."""
AT_ONCE: Final = 1024
"""Handshakes begun and not done: so many only where an application's ``authenticate`` takes its time."""
PATIENCE_S: Final = 2.0
"""One that takes longer no longer counts: an ``authenticate`` that hangs does not shut the door."""
RETRY_AFTER_S: Final = (1.0, 5.0)
"""Those who are sent away come back spread over this time."""
CROWDED_RETRY_S: Final = (20.0, 40.0)
"""A user who has too many connections has them a little later, too."""


def default_max_connections() -> int:
    """What the file limit allows, less the reserve."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = MOST_CONNECTIONS if limit == resource.RLIM_INFINITY else limit - RESERVED_FILES
    return max(1, min(files, MOST_CONNECTIONS))


def address_of(scope: Mapping[str, Any]) -> str | None:
    """Who stands behind a connection: the client's address, which is a forwarded one only where the proxy is trusted
    (the server has put it into the scope then). Of IPv6 the /64: one household, one machine has all of it."""
    client = scope.get("client")
    if not client:
        return None
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return None  # no address: a Unix socket, or words of a proxy
    if address.version == 4:
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else str(ipaddress.ip_network((int(address), 64), strict=False))


class Place:
    """Of one handshake. ``entered`` once the hub has the connection; ``left`` in any case when its ASGI call ends."""

    __slots__ = ("_accepting", "_user", "address", "inside")

    def __init__(self, accepting: Accepting, address: str | None) -> None:
        self._accepting = accepting
        self._user: str | None = None
        self.address = address
        self.inside = False

    async def turn(self) -> None:
        """Return when it may begin."""
        await self._accepting.turn(self)

    def claim(self, user: str) -> None:
        """It is this user's. Raises :class:`TooManyConnections`."""
        self._accepting.claim(user)
        self._user = user

    def entered(self, connection: Connection) -> None:
        self._accepting.entered(self, connection, self._user)

    def left(self) -> None:
        """Idempotent."""
        self._accepting.left(self, self._user)


class Accepting:
    """``connected`` says how many connections the hub has, ``of_user`` how many of one user, ``leaving`` whether it is
    draining."""

    def __init__(
        self,
        settings: Settings,
        connected: Callable[[], int],
        of_user: Callable[[str], int],
        leaving: Callable[[], bool],
    ) -> None:
        self._leaving = leaving
        self._connected = connected
        self._of_user = of_user
        self.max_connections = settings.max_connections or default_max_connections()
        self._max_per_user = settings.max_connections_per_user
        self._max_per_address = settings.max_connections_per_address
        self._proxies = [ipaddress.ip_network(each) for each in settings.trusted_proxies]
        self._arrivals = Buckets(settings.connects_per_min / 60, settings.max_connections_per_user)
        self._entering: set[Place] = set()
        self._entering_of: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()
        self._homes: dict[Connection, str] = {}
        """Addresses of the connections that are in, where addresses are counted."""
        self._waiting: deque[tuple[Place, asyncio.Future[None]]] = deque()
        self._begun: OrderedDict[Place, float] = OrderedDict()
        """Handshakes that have had their turn, and when."""
        self._this_turn = 0
        self._page: asyncio.Handle | None = None
        """Turned at the loop's next turn."""
        self._patience: asyncio.TimerHandle | None = None
        """Runs when all that have begun take long."""

    def watch(self, metrics: Metrics) -> None:
        """Show these numbers there."""
        metrics.watch("roomcast_handshakes_waiting", "Handshakes whose turn has not come.", lambda: len(self._waiting))
        metrics.watch("roomcast_connections_limit", "WebSockets this node takes.", lambda: self.max_connections)

    # Places.

    def place(self, scope: Mapping[str, Any]) -> Place:
        """Raises :class:`Denied`. Whoever gets a place calls ``left`` on it in the end."""
        if self._leaving():
            raise Denied(503, "This node is leaving: connect again.\n", "draining", random.uniform(*RETRY_AFTER_S))
        if self._connected() + len(self._entering) >= self.max_connections:
            text = "This node is full: connect again a little later.\n"
            raise Denied(503, text, "full", random.uniform(*RETRY_AFTER_S))
        address = self._counted(address_of(scope)) if self._max_per_address else None
        if address is not None:
            if self._addresses[address] >= self._max_per_address:
                text = "Too many connections from your address: close some.\n"
                raise Denied(429, text, "address", random.uniform(*CROWDED_RETRY_S))
            self._addresses[address] += 1
        place = Place(self, address)
        self._entering.add(place)
        return place

    def _counted(self, address: str | None) -> str | None:
        """A trusted proxy that speaks for nobody (a health check) is no client."""
        if address is None or not self._proxies:
            return address
        network = ipaddress.ip_network(address)
        trusted = any(network.version == proxy.version and network.overlaps(proxy) for proxy in self._proxies)
        return None if trusted else address

    def claim(self, user: str) -> None:
        count = self._of_user(user) + self._entering_of[user]
        if count >= self._max_per_user:
            retry_after_s = random.uniform(*CROWDED_RETRY_S)
            raise TooManyConnections(f"you have {count} connections on this node: close some", "user", retry_after_s)
        wait_s = self._arrivals.take(user, time.monotonic())
        if wait_s > 0:
            retry_after_s = wait_s + random.uniform(*RETRY_AFTER_S)
            raise TooManyConnections("you connect too often: back off", "too_often", retry_after_s)
        self._entering_of[user] += 1

    def entered(self, place: Place, connection: Connection, user: str | None) -> None:
        if place.inside:
            return
        place.inside = True
        self._leave_door(place, user)
        if place.address is not None:
            self._homes[connection] = place.address

    def left(self, place: Place, user: str | None) -> None:
        if place in self._entering:
            self._leave_door(place, user)
            self._leave_address(place.address)

    def lost(self, connection: Connection) -> None:
        """A connection that had entered is gone."""
        if self._homes:
            self._leave_address(self._homes.pop(connection, None))

    def _leave_door(self, place: Place, user: str | None) -> None:
        self._entering.discard(place)
        self._begun.pop(place, None)
        if user is not None:
            self._entering_of[user] -= 1
            if not self._entering_of[user]:
                del self._entering_of[user]
        if self._waiting:
            self._look()

    def _leave_address(self, address: str | None) -> None:
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    # Turns.

    async def turn(self, place: Place) -> None:
        if not self._waiting and self._may_begin():
            self._begin(place)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((place, future))
        self._look()
        await future

    def _may_begin(self) -> bool:
        now_s = time.monotonic()
        while self._begun:
            place, begun_s = next(iter(self._begun.items()))
            if now_s - begun_s < PATIENCE_S:
                break
            del self._begun[place]
        return self._this_turn < PER_TURN and len(self._begun) < AT_ONCE

    def _begin(self, place: Place) -> None:
        self._this_turn += 1
        self._begun[place] = time.monotonic()
        self._look()

    def _look(self) -> None:
        """Who waits may begin in the loop's next turn."""
        if self._page is None:
            self._page = asyncio.get_running_loop().call_soon(self._turn_page)

    def _turn_page(self) -> None:
        self._page = None
        self._this_turn = 0
        while self._waiting and self._may_begin():
            place, future = self._waiting.popleft()
            if not future.done():  # its task was cancelled otherwise
                future.set_result(None)
                self._begin(place)
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._waiting and self._page is None:
            oldest_s = next(iter(self._begun.values()))
            delay_s = max(0.0, oldest_s + PATIENCE_S - time.monotonic())
            self._patience = asyncio.get_running_loop().call_later(delay_s, self._turn_page)
