"""One of several workers that share a port (``roomcast serve --workers N``): what it is told by its supervisor.

Each worker is a node of its own and listens on a socket of its own with SO_REUSEPORT, so the kernel spreads connections
over them evenly, and one that ends takes no more from then on (figures: docs/design.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import MutableMapping
from typing import Final, NamedTuple

from server.settings import Settings

VARIABLE: Final = "_ROOMCAST_WORKER"
METRICS_PORT: Final = 9400
"""Of the first worker, where the settings do not name one."""
MAX_NAME_CHARS: Final = 48


class Place(NamedTuple):
    """In the environment of a worker: three numbers."""

    number: int
    port: int
    """That all share."""
    up_fd: int
    """A pipe on which it says that it serves, every second."""

    @property
    def variable(self) -> str:
        return f"{self.number} {self.port} {self.up_fd}"

    def settings(self, settings: Settings) -> Settings:
        """Those of this worker: with a name and a port for metrics of its own."""
        name = (settings.node or socket.gethostname())[:MAX_NAME_CHARS]
        own = {"port": self.port, "node": f"{name}-{self.number}", "metrics_port": metrics_port(settings, self.number)}
        return settings.model_copy(update=own)

    async def tell(self) -> None:
        """Tell the supervisor that this worker serves, and then that it goes on, every second. For ever."""
        os.set_blocking(self.up_fd, False)
        while True:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):  # it does not listen, or is gone
                os.write(self.up_fd, b"\n")
            await asyncio.sleep(1)

    def mark_logs(self) -> None:
        """Let every line of the log name this worker."""

        def mark(record: logging.LogRecord) -> bool:
            record.worker = self.number
            return True

        for handler in logging.getLogger().handlers:
            handler.addFilter(mark)


def take_place(environ: MutableMapping[str, str]) -> Place | None:
    """The place of this process, None if it is no worker. Taken out of the environment, which its children inherit."""
    told = environ.pop(VARIABLE, None)
    return Place(*map(int, told.split())) if told is not None else None


def metrics_port(settings: Settings, number: int) -> int:
    """Where the metrics of this worker are."""
    return (settings.metrics_port or METRICS_PORT) + number


def shared_sockets(host: str, port: int) -> list[socket.socket]:
    """One for each address of the host, bound as others of the same user may be, not listening yet. Raises OSError."""
    found = dict.fromkeys(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    bound: list[socket.socket] = []
    try:
        for family, kind, proto, _, address in found:
            each = socket.socket(family, kind, proto)
            bound.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6 and len(found) > 1:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind((address[0], bound[0].getsockname()[1] if port == 0 else port, *address[2:]))
    except BaseException:
        for each in bound:
            each.close()
        raise
    return bound
