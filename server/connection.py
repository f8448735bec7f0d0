"""One accepted WebSocket, as the hub sees it. Two lanes implement it: server/fastlane.py and server/plainlane.py.

Everything here is synchronous: a hub that fans out never waits for anybody. A connection for which bytes wait, since
its peer reads slowly, is congested: no further request of it is read, and what is no message gives way
(server/slow.py). One whose outbound buffer is over its byte limit *before* a write is closed with 4008 (a freeze of
some seconds must not cut healthy readers, so what one tick brings is always taken).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar, Literal

from server import frames
from server.identity import ANONYMOUS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection

    from broker.base import Position
    from server import protocol
    from server.backlog import Backlog
    from server.limits import Budget, Pace

CONGESTED_BYTES = 64 * 1024
"""So much may wait on the plain lane, for an application, or of an application's own sending (asyncio's own high-water
mark). On the fast lane whatever the kernel does not take waits, and that is taken in by server/uvicorn_http.py."""

BUSY, CONGESTED, INBOX, PACED = 1, 2, 4, 16
"""Why reading is held: a request waits for an authorizer or Redis; the peer reads too slowly; the handler does; more
comes for it than may."""


class Connection:
    """What the hub knows and may do. Equality is identity; ``id`` is unique within the node's life."""

    lane: ClassVar[str] = "fast"
    transport: asyncio.Transport
    """Only of connections that are :attr:`direct`."""
    __slots__ = (
        "acks",
        "backlog",
        "bad_requests",
        "budget",
        "handler",
        "headers",
        "held",
        "id",
        "identity",
        "listener",
        "pace",
        "packed",
        "path",
        "present",
        "raw",
        "session",
        "user",
    )

    def __init__(self) -> None:
        self.id = 0
        self.user: str | None = None
        """The user id as JSON text (``42`` and ``"42"`` are two users); None is anonymous."""
        self.identity = ANONYMOUS
        """Where ``user`` comes from, what else is known of it, and until when."""
        self.session = ""
        """The client's identity across reconnects."""
        self.path = ""
        self.present = False
        """Its user has been counted as here."""
        self.packed = False
        """True: the same objects travel as msgpack in binary frames."""
        self.held = 0
        """Bits of BUSY, CONGESTED, INBOX. While any is set no request is read from the peer."""
        self.raw = False
        """True: it sees and sends exactly what the application does; nothing of the protocol."""
        self.handler: Handler | None = None
        """The application's side, where it has one. Messages that are no op go to it."""
        self.listener: Listener | None = None
        """The hub's ears, once it has attached."""
        self.budget: Budget | None = None
        """What it may still ask; made with its first request."""
        self.pace: Pace | None = None
        """How fast messages to the application are read; made with the first one."""
        self.acks: deque[tuple[asyncio.Future[Position], protocol.Message]] | None = None
        """Acks not yet sent, oldest first; None when there are none."""
        self.backlog: Backlog | None = None
        """What gave way while the peer reads too slowly; None when nothing did."""
        self.bad_requests: deque[float] | None = None
        """When the latest bad requests came; None when there were none."""

    # What the hub calls.

    @property
    def direct(self) -> bool:
        """JSON frames may be written to its :attr:`transport` as they are, without :meth:`send`. Its listener is told
        when this changes."""
        return False

    def send(self, batch: frames.Batch) -> None:
        """What a tick brought for one room or path. Never raises, never waits; a slow consumer closes itself."""
        raise NotImplementedError

    def send_event(self, payload: bytes) -> None:
        """One event (JSON text as bytes), encoded as the client wants it. Never raises, never waits."""
        raise NotImplementedError

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake; abort if the peer does not finish it in time. Closing twice is a no-op."""
        raise NotImplementedError

    def hold(self, why: int) -> None:
        """Read no further request until :meth:`release` was called for every reason to hold."""
        raise NotImplementedError

    def release(self, why: int) -> None:
        raise NotImplementedError

    def to_application(self, data: bytes, text: bool) -> None:
        """Hand a message to the application's handler. Over 64 KiB of them, reading is held until it has caught up."""
        raise NotImplementedError

    def outbound_bytes(self) -> int:
        """Bytes accepted for sending and not yet taken by the kernel."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """True once a close was sent, received or became unnecessary. Nothing is delivered from then on."""
        raise NotImplementedError


class Handler:
    """What a connection is at the application's end. The method is synchronous and never raises."""

    __slots__ = ()

    takes_messages: bool
    """Messages that are no op are for it."""

    def lost(self, code: int) -> None:
        """It is over; called once, after an attached connection was lost."""
        raise NotImplementedError


class Listener:
    """What a connection tells the hub. The methods are synchronous and never raise."""

    __slots__ = ()

    def received(self, connection: Connection, data: bytes, text: bool) -> None:
        """One whole message."""
        raise NotImplementedError

    def lost(self, connection: Connection, code: int) -> None:
        """It is over. Called exactly once for an attached connection; ``code`` as in RFC 6455 §7.1.5."""
        raise NotImplementedError

    def turned(self, connection: Connection) -> None:
        """Whether it is :attr:`Connection.direct` may have changed."""
        raise NotImplementedError

    def dropped(self, connection: Connection, kind: str, events: int) -> None:
        """So many events of this kind (``message``, ``presence``, ``receipt``, ``typing``) are not sent, because the
        peer reads too slowly. After messages the close follows; of the others a later one is sent in their place."""
        raise NotImplementedError

    def cut(self, connection: Connection, why: Literal["limit", "stall"]) -> None:
        """It ends because the peer reads too slowly: it owes more than the limit, or has owed too much for too long."""
        raise NotImplementedError

    def caught_up(self, connection: Connection, rooms: Collection[str | None]) -> None:
        """The peer reads again. Of these rooms (None: everywhere) it must be told who is there."""
        raise NotImplementedError
