"""A TCP proxy between a node and its Redis that can be made to behave badly, down to the byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class TcpProxy:
    """Forwards to ``target_port`` on loopback. *Up* is from the node to Redis, *down* the answers.

    ``hold_up`` / ``hold_down`` keep the bytes back (delay; both: a half-open connection, new ones included) until
    ``release()``, and ``deafen(number)`` the answers of the connection that was accepted as that, from 1.
    ``cut_after(n)`` ends each connection after n more bytes down. ``chunk`` is the largest piece
    forwarded at a time, ``delay_s`` how long each way holds up what it read. ``inject`` puts bytes of
    our own among the answers of one connection, and ``retarget`` sends new ones elsewhere.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.chunk = 65536
        self.delay_s = 0.0
        self.accepted = 0
        self._target_port = target_port
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._each: dict[int, asyncio.Event] = {}
        self._clients: dict[int, asyncio.StreamWriter] = {}
        self._budget: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.release()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def connections(self) -> int:
        return len(self._writers) // 2

    def hold_up(self) -> None:
        self._up.clear()

    def hold_down(self) -> None:
        self._down.clear()

    def deafen(self, number: int) -> None:
        self._each[number].clear()

    def undeafen(self, number: int) -> None:
        self._each[number].set()

    def inject(self, number: int, data: bytes) -> None:
        self._clients[number].write(data)

    def retarget(self, target_port: int) -> None:
        self._target_port = target_port

    def release(self) -> None:
        """Forward again, what was kept back first."""
        self._up.set()
        self._down.set()
        for gate in self._each.values():
            gate.set()

    def cut(self) -> None:
        """End all connections at once. What was kept back is lost."""
        for writer in self._writers:
            writer.transport.abort()

    def cut_after(self, nbytes: int | None) -> None:
        self._budget = nbytes

    @asynccontextmanager
    async def running(self) -> AsyncIterator[TcpProxy]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        gate = self._each[self.accepted] = asyncio.Event()
        gate.set()
        self._clients[self.accepted] = writer
        task = asyncio.ensure_future(self._serve(reader, writer, gate))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._writers |= {writer, far}
            directions = {
                asyncio.ensure_future(self._forward(reader, far, (self._up,), down=False)),
                asyncio.ensure_future(self._forward(far_reader, writer, (self._down, gate), down=True)),
            }
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for direction in directions:
                    direction.cancel()
                await asyncio.gather(*directions, return_exceptions=True)
        except OSError:
            pass
        finally:
            for end in (writer, far):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()
                    with suppress(OSError):
                        await end.wait_closed()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        gates: tuple[asyncio.Event, ...],
        *,
        down: bool,
    ) -> None:
        while data := await reader.read(65536):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            chunk = self.chunk
            for start in range(0, len(data), chunk):
                piece = data[start : start + chunk]
                for gate in gates:
                    await gate.wait()
                cut = down and self._budget is not None and self._budget <= len(piece)
                if down and self._budget is not None:
                    piece = piece[: self._budget]
                    self._budget -= len(piece)
                writer.write(piece)
                await writer.drain()
                if cut:  # decided before the wait: a piece that lost its end must be the last
                    return
                if chunk < len(data):
                    await asyncio.sleep(0)
