"""What all scenarios do alike: alternate the servers, show progress, account CPU over a window."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtests.accounting import core_time, process_cpu
from loadtests.result import Sample
from loadtests.stage import KINDS, Server, Stage

Tell = Callable[[str], None]
"""Shows what is being done right now."""


def alternate(
    samples: int, measure: Callable[[Server, Tell], dict[str, float]], stage: Stage, console: Console
) -> list[Sample]:
    """Measure each server ``samples`` times in turn, each time a fresh process on an empty Redis."""
    done: list[Sample] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, refresh_per_second=2, transient=True) as progress:
        task = progress.add_task("starting", total=samples * len(KINDS))
        for number in range(1, samples + 1):
            for kind in KINDS:
                name = f"{kind} {number}/{samples}"

                def tell(what: str, name: str = name) -> None:
                    progress.update(task, description=f"{name}: {what}")

                tell("starting")
                started_s = time.monotonic()
                with stage.server(kind) as server:
                    done.append(Sample(kind, measure(server, tell)))
                progress.advance(task)
                if not console.is_terminal:
                    console.print(f"{name} done in {time.monotonic() - started_s:.0f} s")
    return done


class Window:
    """CPU of the server, and of both cores, from its creation to ``close``."""

    def __init__(self, server: Server, stage: Stage) -> None:
        self._server = server
        self._cores = [c for c in (stage.server_core, stage.load_core) if c is not None]
        self._at_s = time.monotonic()
        self._cpu = process_cpu(server.child.pid)
        self._busy = [core_time(core) for core in self._cores]

    def close(self) -> dict[str, float]:
        """``cpu_s`` and ``cpu_share`` of the server, ``kernel_share`` of that CPU, and how busy the cores were."""
        cpu = process_cpu(self._server.child.pid).since(self._cpu)
        window_s = time.monotonic() - self._at_s
        figures = {
            "cpu_s": cpu.total_s,
            "cpu_share": cpu.total_s / window_s,
            "kernel_share": cpu.system_s / cpu.total_s if cpu.total_s else 0.0,
        }
        for name, core, before in zip(("server_core_busy", "load_core_busy"), self._cores, self._busy, strict=False):
            figures[name] = core_time(core).busy_share_since(before)
        return figures


def trust_notes(samples: list[Sample], *, pinned: bool) -> list[str]:
    """What speaks against the figures: a load side at its limit, a neighbour on the server's core, no pinning."""
    if not pinned:
        return ["only one core: the server, Redis and the load shared it, ratios mean little"]
    notes = []
    for kind in KINDS:
        if any(s.server == kind and s.figures["load_core_busy"] > 0.95 for s in samples):
            notes.append(f"the load core was over 95 % busy while the {kind} ran: its figures may be the load's limit")
    strangers = max(s.figures["server_core_busy"] - s.figures["cpu_share"] for s in samples)
    if strangers > 0.1:
        notes.append(
            f"up to {strangers:.0%} of the server's core went to something else: a noisy machine, measure again"
        )
    return notes
