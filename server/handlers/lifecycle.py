"""The life of a connection that has a handler. Every style of handlers runs through :func:`serve`, and nowhere else.

Origin and credentials → middleware → the handler's *session* (a coroutine function of the connection) → the close. A
session that fails closes its own connection with 1011, is logged once with the request id, and takes nobody else along.
One that still runs ``grace_s`` after its client has gone, or when the node ends, is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect, WebSocketDisconnected

from server import closing, events, protocol
from server.admission import Admission, Demand
from server.auth import Refused
from server.denial import Denied
from server.handlers.connection import NORMAL_CODES, CaughtCodes, WebSocket, current
from server.handlers.messages import BadMessage, MessageType
from server.hub import LocalHub

logger = logging.getLogger("server.handlers")

SITE: Final = "roomcast.site"
"""Key in the ASGI scope under which a running node offers itself to handlers."""
GRACE_S: Final = 5.0
FAREWELL_S: Final = 5.0
"""How long ``on_disconnect`` may take."""
CANCELLED_S: Final = 2.0
"""How long a cancelled handler may take to end when its node does."""

Session = Callable[[WebSocket], Awaitable[object]]
WsMiddleware = Callable[..., Any]
"""``(websocket, call_next)``, sync never: it awaits ``call_next()``, or closes, or rejects."""


@dataclass(frozen=True)
class Options:
    """Of one endpoint."""

    protocol: bool = False
    """Known ops are the hub's; the handler gets the rest."""
    takes_messages: bool = True
    auth: bool | None = None
    """True: a user or 4001. False: anybody. None: what the kind of endpoint does (protocol: as /ws; raw: anybody)."""
    origins: Sequence[str] | None = None
    receive_type: MessageType = "text"
    send_type: MessageType = "text"
    caught_close_codes: CaughtCodes = NORMAL_CODES
    auto_accepted: bool = False

    @property
    def demand(self) -> Demand:
        if self.auth:
            return "user"
        if self.auth is None and self.protocol:
            return "required"
        return "optional" if self.protocol else "lenient"


@dataclass
class Site:
    """What a running node has for its handlers."""

    hub: LocalHub
    admission: Admission
    middleware: Sequence[WsMiddleware] = ()
    grace_s: float = GRACE_S
    sessions: set[asyncio.Task[object]] = field(default_factory=set)

    async def close(self, grace_s: float, others: Collection[asyncio.Task[object]]) -> None:
        """Cancel the sessions, and these other tasks, that still run after ``grace_s``."""
        running = {*self.sessions, *others}
        if running and grace_s > 0:
            _, running = await asyncio.wait(running, timeout=grace_s)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=CANCELLED_S)


class Endpoint:
    """An ASGI application of one session: what stands in a ``WebSocketRoute``."""

    def __init__(self, session: Session, options: Options, middleware: Sequence[WsMiddleware] = ()) -> None:
        self.session = session
        self.options = options
        self.middleware = middleware

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await serve(scope, receive, send, self.session, self.options, self.middleware)


async def serve(
    scope: Scope,
    receive: Receive,
    send: Send,
    session: Session,
    options: Options,
    middleware: Sequence[WsMiddleware] = (),
) -> None:
    """Raises what the session raises, after the connection is closed: the server or the application around logs it."""
    site: Site | None = scope.get(SITE)
    websocket = WebSocket(
        scope,
        receive,
        send,
        hub=site.hub if site is not None else None,
        protocol_endpoint=options.protocol,
        receive_type=options.receive_type,
        send_type=options.send_type,
        caught_close_codes=options.caught_close_codes,
        auto_accepted=options.auto_accepted,
    )
    websocket.takes_messages = options.takes_messages
    if site is not None and not await _admit(site, websocket, options):
        return
    layers = [*(site.middleware if site is not None else ()), *middleware]
    task = asyncio.ensure_future(_through(layers, websocket, session))
    if site is not None:
        site.sessions.add(task)
        task.add_done_callback(site.sessions.discard)
        websocket.when_gone = partial(websocket.loop.call_later, site.grace_s, task.cancel)
    try:
        await _guard(websocket, task)
    finally:
        websocket.when_gone = None
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
        if websocket.pump is not None:
            await websocket.pump


async def _admit(site: Site, websocket: WebSocket, options: Options) -> bool:
    try:
        identity, given = await site.admission.admit(websocket.scope, demand=options.demand, origins=options.origins)
    except Denied as denied:
        site.hub.counts.refused[denied.reason] += 1
        await websocket.reject(denied.status, denied.text, denied.headers)
        return False
    except Refused as error:
        site.hub.counts.refused[error.reason] += 1
        logger.info("refused a connection: %s", error)
        websocket.hub = None  # nothing of the node is for it
        await websocket.accept()
        if options.protocol and error.retry_after_s:
            backoff = events.backoff(error.retry_after_s)
            await websocket.send_event({"type": "websocket.send", "text": backoff.decode()})
        await websocket.close(error.code, str(error)[:123])
        return False
    session_key = given.query.get("session")
    key_is_good = session_key is not None and protocol.session_is_valid(session_key)
    websocket.admitted(identity, session_key if key_is_good else None)
    return True


async def _through(layers: Sequence[WsMiddleware], websocket: WebSocket, session: Session) -> None:
    """The layers from the outermost on, the session innermost."""
    current.set(websocket)
    if not layers:
        await session(websocket)
        return

    async def call_next(_: object = None) -> None:
        await _through(layers[1:], websocket, session)

    await layers[0](websocket, call_next)


async def _guard(websocket: WebSocket, task: asyncio.Future[None]) -> None:
    """Wait for the session, and close as it ended."""
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise  # it is the server that ends us
        await websocket.ensure_closed(closing.GOING_AWAY)
    except BadMessage as error:
        await websocket.ensure_closed(closing.WRONG_KIND, str(error))
    except WebSocketDisconnected:
        if websocket.close_code is None:
            await _failed(websocket)
            raise
        logger.debug("a handler went on after the close", exc_info=True)
        await websocket.ensure_closed()
    except WebSocketDisconnect as error:
        if not websocket.catches(error.code):
            error.add_note(f"request id {websocket.request_id}")
            raise
    except Exception as error:
        error.add_note(f"request id {websocket.request_id}")
        await _failed(websocket)
        raise
    else:
        await websocket.ensure_closed()


async def _failed(websocket: WebSocket) -> None:
    with contextlib.suppress(Exception):  # what the handler raised is what counts
        await websocket.ensure_closed(closing.INTERNAL_ERROR, f"the handler failed: {websocket.request_id}")


async def converse(
    websocket: WebSocket,
    connect: Session,
    receive: Callable[[WebSocket, Any], Awaitable[object]],
    disconnect: Callable[[WebSocket, int], Awaitable[object]],
    *,
    receive_timeout_s: float | None = None,
) -> None:
    """A session of callbacks: one after the accept, one per message, and one at the end, whatever that was."""
    try:
        await connect(websocket)
        while websocket.is_open:
            try:
                async with asyncio.timeout(receive_timeout_s):
                    message = await websocket.receive()
            except TimeoutError:
                await websocket.ensure_closed(closing.NORMAL, f"nothing was said for {receive_timeout_s:g} s")
                break
            await receive(websocket, message)
    except WebSocketDisconnect:
        pass  # what `disconnect` is for
    except BadMessage as error:
        await websocket.ensure_closed(closing.WRONG_KIND, str(error))
    except Exception:
        await _failed(websocket)
        raise
    finally:
        async with asyncio.timeout(FAREWELL_S):
            await disconnect(websocket, websocket.close_code or closing.INTERNAL_ERROR)
