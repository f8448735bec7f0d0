"""``roomcast serve --workers N``: N nodes on one port, one process each, kept alive by this one.

The supervisor serves nobody and reads no Redis: it starts workers, starts again what dies, passes signals on and ends
with the last of them. Killed itself, it takes its workers along (they drain).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from server.preflight import check_broker_login, check_ports
from server.reload import end_with_parent
from server.settings import Settings, SettingsError
from server.workplace import VARIABLE, Place, metrics_port, shared_sockets

logger = logging.getLogger("server.workers")

MISTAKE: Final = 2
"""Exit code of a worker that could not start because of its settings: the next one could not either."""
STEADY_S: Final = 10.0
"""A worker that lived for this long began well."""
FIRST_WAIT_S: Final = 0.1
MAX_QUICK_ENDS: Final = 5
LAST_RESORT_S: Final = 30.0
"""Workers end themselves within the drain and a little. What is there so long after the drain is killed."""
AT_ONCE_S: Final = 2.0
"""The same after a second signal."""
SILENT_S = 30
"""A worker that says nothing for so long hangs, and the kernel gives it new connections all the same: it is killed.
Counted in seconds of this process, so that nobody is killed after a sleep of the whole machine."""
TOO_OFTEN: Final = (
    f"worker {{worker}} ended {MAX_QUICK_ENDS} times within {STEADY_S:g} s of its start, at last with {{how}}: its log "
    "above should say why; all workers are stopped"
)

Greet = Callable[[Settings, int, Sequence[int]], None]
"""Takes the settings, the port, and those of the metrics."""


class Patience:
    """How soon a worker is started again. Pure: time comes in."""

    def __init__(self) -> None:
        self.quick_ends = 0

    def wait_s(self, lived_s: float) -> float | None:
        """What to wait after one that lived so long: little at first, twice as much each time one ends early. None: it
        is of no use, ``MAX_QUICK_ENDS`` in a row did."""
        self.quick_ends = 1 if lived_s >= STEADY_S else self.quick_ends + 1
        if self.quick_ends == MAX_QUICK_ENDS:
            return None
        return FIRST_WAIT_S * 2.0 ** (self.quick_ends - 1)


def count_of(settings: Settings) -> int:
    """How many workers: as many as this process has cores, if the settings say 0."""
    return settings.workers or len(os.sched_getaffinity(0))


def supervise(settings: Settings, greet: Greet) -> int:
    """Run the workers until SIGTERM or SIGINT, and their drain. Returns the exit code. Raises SettingsError for what
    can be seen before anything starts."""
    count = count_of(settings)
    if settings.broker.startswith("memory:"):
        raise SettingsError(
            f"{count} workers would not hear one another with memory://: name a Redis with --broker redis://host:6379/0"
        )
    metrics_ports = [metrics_port(settings, number) for number in range(count)]
    check_ports(settings.host, settings.port, metrics_ports)
    check_broker_login(settings.broker, settings.broker_password_file)
    with ExitStack() as stack:
        # Bound for as long as this process lives: the port stays ours, also while no worker listens.
        reserved = [stack.enter_context(each) for each in shared_sockets(settings.host, settings.port)]
        port: int = reserved[0].getsockname()[1]
        greet(settings, port, metrics_ports)
        span = f"{metrics_ports[0]} to {metrics_ports[-1]}"
        logger.info("%d workers on %s port %d, their metrics on the ports %s", count, settings.host, port, span)
        command = [sys.executable, "-m", "server", *sys.argv[1:]]
        return asyncio.run(Supervisor(command, count, port, settings.drain_s).run())


class Worker:
    """One place, and the process that holds it now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.up = asyncio.Event()
        """Whether it serves."""
        self.silent_s = 0
        self.replaced = False
        """It was told to end, and the next one is wanted at once."""

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)


class Supervisor:
    def __init__(self, command: Sequence[str], count: int, port: int, drain_s: float) -> None:
        self._command = command
        self._port = port
        self._drain_s = drain_s
        self._workers = [Worker(number) for number in range(count)]
        self._stopping = asyncio.Event()
        self._code = 0
        self._rolling: asyncio.Task[None] | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_replace)
        first = asyncio.create_task(self._keep(self._workers[0]))
        watch = asyncio.create_task(self._watch())
        # A mistake that all would make is told once.
        up = asyncio.create_task(self._workers[0].up.wait())
        await asyncio.wait((first, up), return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        others = self._workers[1:] if not self._stopping.is_set() else []
        await asyncio.gather(first, *(self._keep(worker) for worker in others))
        watch.cancel()
        return self._code

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(1)
            for worker in self._workers:
                worker.silent_s += 1
                if worker.silent_s >= SILENT_S and worker.up.is_set():
                    logger.error("worker %d hangs, it said nothing for %d s: it is killed", worker.number, SILENT_S)
                    worker.silent_s = 0
                    worker.signal(signal.SIGKILL)

    async def _keep(self, worker: Worker) -> None:
        """Until all is to end."""
        patience = Patience()
        while not self._stopping.is_set():
            began_s = time.monotonic()
            was_up, code = await self._live(worker)
            if self._stopping.is_set():
                # One that was told before it listened for signals has nobody to drain.
                self._code = self._code or (0 if code in (0, -signal.SIGTERM) else 1)
                return
            if worker.replaced:
                worker.replaced = False
                continue
            wait_s = patience.wait_s(time.monotonic() - began_s)
            how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            if code == MISTAKE and not was_up:
                self._give_up(MISTAKE, f"worker {worker.number} cannot start: it has said why")
            elif wait_s is None:
                self._give_up(1, TOO_OFTEN.format(worker=worker.number, how=how))
            else:
                logger.error("worker %d ended with %s: it is started again in %g s", worker.number, how, wait_s)
                try:
                    await asyncio.wait_for(self._stopping.wait(), wait_s)
                except TimeoutError:
                    pass

    async def _live(self, worker: Worker) -> tuple[bool, int]:
        """One life of a worker: whether it came to serve, and its exit code."""
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        place = Place(worker.number, self._port, writing)

        def told() -> None:
            worker.silent_s = 0
            if not os.read(reading, 4096):  # its end is closed
                loop.remove_reader(reading)
            elif not worker.up.is_set() and not worker.replaced:
                logger.info("worker %d serves", worker.number)
                worker.up.set()

        loop.add_reader(reading, told)
        try:
            try:
                process = worker.process = await asyncio.create_subprocess_exec(
                    *self._command,
                    env={**os.environ, VARIABLE: place.variable},
                    pass_fds=(writing,),
                    process_group=0,  # Ctrl-C is for the supervisor, which passes on what is meant
                    preexec_fn=end_with_parent,
                )
            finally:
                os.close(writing)
            if self._stopping.is_set():
                worker.signal(signal.SIGTERM)
            code = await process.wait()
        except OSError as error:
            logger.error("worker %d cannot be started: %s", worker.number, error)
            code = 1
        finally:
            loop.remove_reader(reading)
            os.close(reading)
            was_up = worker.up.is_set()
            worker.up.clear()
        return was_up, code

    def _give_up(self, code: int, why: str) -> None:
        logger.critical("%s", why)
        self._code = code
        self._stop()

    def _told_to_stop(self) -> None:
        if not self._stopping.is_set():
            self._stop()
            return
        for worker in self._workers:
            worker.signal(signal.SIGTERM)  # the second for them, too
        asyncio.get_running_loop().call_later(AT_ONCE_S, self._kill)

    def _stop(self) -> None:
        logger.info("stopping %d workers", len(self._workers))
        self._stopping.set()
        if self._rolling is not None:
            self._rolling.cancel()
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(self._drain_s + LAST_RESORT_S, self._kill)

    def _kill(self) -> None:
        for worker in self._workers:
            if worker.process is not None and worker.process.returncode is None:
                logger.error("worker %d did not end in time: it is killed", worker.number)
                worker.signal(signal.SIGKILL)

    def _told_to_replace(self) -> None:
        if not self._stopping.is_set() and (self._rolling is None or self._rolling.done()):
            self._rolling = asyncio.ensure_future(self._replace_all())

    async def _replace_all(self) -> None:
        """One after the other: each drains, and the next goes when its successor serves."""
        for worker in self._workers:
            await worker.up.wait()
            logger.info("worker %d is replaced", worker.number)
            worker.replaced = True
            worker.up.clear()
            worker.signal(signal.SIGTERM)
            await worker.up.wait()
