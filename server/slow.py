"""What becomes of a reader that is too slow, on both lanes.

Once bytes wait for it (fast lane: the kernel takes no more; plain lane: more than ``CONGESTED_BYTES``) typing, presence
and receipts give way: the latest of each waits in a backlog. Messages (broadcasts and direct ones, too) are
still taken, until the outbound limit: then it is closed with 4008, reconnects and resumes. One for which bytes wait for
``STALL_S`` without a break is cut.
"""

from __future__ import annotations

from server import closing
from server.backlog import Backlog
from server.connection import CONGESTED, Connection
from server.frames import Batch

STALL_S = 10.0
"""How long bytes may wait for a peer without a break."""


def set_aside(connection: Connection, batch: Batch) -> Batch | None:
    """Of what a tick brought for a congested reader: what must go out all the same, or None. The rest is in its
    backlog."""
    messages, giving = batch.apart()
    if giving:
        backlog = connection.backlog
        if backlog is None:
            backlog = connection.backlog = Backlog()
        for part in giving:
            for kind in backlog.put(part):
                if connection.listener is not None:
                    connection.listener.dropped(connection, kind, 1)
    return messages


def catch_up(connection: Connection) -> None:
    """Send what gave way, unless the reader is congested again already."""
    backlog = connection.backlog
    if backlog is None or connection.held & CONGESTED or connection.closed:
        return
    connection.backlog = None
    parts = backlog.parts()
    if parts:
        connection.send(Batch(parts))
    if backlog.lists and connection.listener is not None:
        connection.listener.caught_up(connection, backlog.lists)


def slow_close(connection: Connection, messages: int) -> None:
    """``messages`` more would be over the limit of what a peer may owe."""
    if connection.listener is not None:
        connection.listener.dropped(connection, "message", messages)
        connection.listener.cut(connection, "limit")
    connection.close(closing.SLOW, "too slow a reader: reconnect and resume")
