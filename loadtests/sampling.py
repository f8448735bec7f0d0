"""What all scenarios do alike: alternate the servers, and account CPU, memory and Redis over a window."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from rich.console import Console

from loadtests.accounting import Cpu, core_time, process_cpu, resident_bytes
from loadtests.result import Plot, Sample, Split, Timeline
from loadtests.stage import KINDS, Server, Stage
from loadtests.steps import Tell, steps

LOOK_S = 0.25
CPU_TIMELINE = Timeline("CPU of the server", "% of a core", {"cpu_user": "user", "cpu_kernel": "kernel"}, per=0.01)
MEMORY = Timeline("Memory of the server", "MiB resident", {"rss_mib": ""})
CPU_SPLIT = Split("CPU of the server", "% of a core", {"user_percent": "user", "kernel_percent": "kernel"})
MACHINE_PLOTS: tuple[Plot, ...] = (CPU_SPLIT, CPU_TIMELINE, MEMORY)
"""Of what a :class:`Window` saw; every scenario that has one shows them."""


def alternate(samples: int, measure: Callable[[Server, Tell], Sample], stage: Stage, console: Console) -> list[Sample]:
    """Measure each server ``samples`` times in turn, each time a fresh process on an empty Redis."""
    done: list[Sample] = []
    with steps(samples * len(KINDS), console) as progress:
        for number in range(1, samples + 1):
            for kind in KINDS:
                with progress.step(f"{kind} {number}/{samples}") as tell, stage.server(kind) as server:
                    done.append(measure(server, tell))
    return done


class Watch:
    """CPU and memory of some processes together, looked at every ``LOOK_S`` from its creation to ``close``. ``pids``
    is asked each time; those that are gone count as they were."""

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        self._pids = pids
        self._began_s = self._looked_s = time.monotonic()
        self._used = Cpu(0.0, 0.0)
        self._last: dict[int, Cpu] = {}
        self.curves: dict[str, list[tuple[float, float]]] = {"cpu_user": [], "cpu_kernel": [], "rss_mib": []}
        """Shares of a core, and MiB, over seconds."""
        self._account()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            self._note()

    def _note(self) -> None:
        before, now_s = self._used, time.monotonic()
        rss_bytes = self._account()
        took_s, used = now_s - self._looked_s, self._used.since(before)
        self._looked_s = now_s
        at_s = now_s - self._began_s
        self.curves["cpu_user"].append((at_s, used.user_s / took_s))
        self.curves["cpu_kernel"].append((at_s, used.system_s / took_s))
        self.curves["rss_mib"].append((at_s, rss_bytes / 2**20))

    def _account(self) -> int:
        """Add what was used since the last time; the memory they have now. A process counts from when it is first
        seen."""
        rss_bytes = 0
        for pid in self._pids():
            try:
                cpu = process_cpu(pid)
                rss_bytes += resident_bytes(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
            new = cpu.since(self._last.get(pid, cpu))
            self._used = Cpu(self._used.user_s + new.user_s, self._used.system_s + new.system_s)
            self._last[pid] = cpu
        return rss_bytes

    def close(self) -> dict[str, float]:
        """``cpu_s`` and ``cpu_share`` of the processes, and ``kernel_share`` of that CPU."""
        self._over.set()
        self._thread.join()
        if not self.curves["rss_mib"] or time.monotonic() - self._looked_s > LOOK_S / 2:
            self._note()
        else:
            self._account()  # the kernel counts CPU in steps of 10 ms, which is much of a short while
        cpu, window_s = self._used, time.monotonic() - self._began_s
        return {
            "cpu_s": cpu.total_s,
            "cpu_share": cpu.total_s / window_s,
            "kernel_share": cpu.system_s / cpu.total_s if cpu.total_s else 0.0,
            "user_percent": cpu.user_s / window_s * 100,
            "kernel_percent": cpu.system_s / window_s * 100,
        }


class Window:
    """CPU of a server, or of several together, of both cores and of Redis, from its creation to ``close``."""

    def __init__(self, pids: Callable[[], Sequence[int]], stage: Stage) -> None:
        self._stage = stage
        self._cores = [c for c in (stage.server_core, stage.load_core) if c is not None]
        self._busy = [core_time(core) for core in self._cores]
        self._redis = stage.redis_use()
        self._watch = Watch(pids)

    @property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        return self._watch.curves

    def close(self) -> dict[str, float]:
        """What :meth:`Watch.close` says, how busy the cores were, and what Redis did: ``redis_cpu_s``,
        ``redis_in_bytes``, ``redis_out_bytes``, ``redis_reads``, ``redis_calls``, ``redis_used_bytes`` (by which its
        memory grew)."""
        figures = self._watch.close()
        for name, core, before in zip(("server_core_busy", "load_core_busy"), self._cores, self._busy, strict=False):
            figures[name] = core_time(core).busy_share_since(before)
        now = self._stage.redis_use()
        return figures | {name: value - self._redis[name] for name, value in now.items()}


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
