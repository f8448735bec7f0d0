"""What the kernel accounts: CPU of a process and of a core, memory of a process. Linux only (/proc)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Cpu(NamedTuple):
    """CPU seconds used so far, all threads; ``system_s`` is the kernel's part."""

    user_s: float
    system_s: float

    @property
    def total_s(self) -> float:
        return self.user_s + self.system_s

    def since(self, before: Cpu) -> Cpu:
        return Cpu(self.user_s - before.user_s, self.system_s - before.system_s)


class Core(NamedTuple):
    """Seconds of one core so far. ``busy_s`` includes interrupts and what the hypervisor took (steal)."""

    busy_s: float
    total_s: float

    def busy_share_since(self, before: Core) -> float:
        total_s = self.total_s - before.total_s
        return (self.busy_s - before.busy_s) / total_s if total_s > 0 else 0.0


def process_cpu(pid: int) -> Cpu:
    """proc(5), /proc/<pid>/stat fields 14 and 15; the name in field 2 may hold anything, even a parenthesis."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Cpu(int(fields[11]) / _TICKS_PER_S, int(fields[12]) / _TICKS_PER_S)


def family(pid: int) -> list[int]:
    """A process and its descendants that live: a server may work in processes of its own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]


def core_time(core: int) -> Core:
    """proc(5), /proc/stat: user nice system idle iowait irq softirq steal (guest is inside user)."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            times = [int(t) / _TICKS_PER_S for t in ticks[:8]]
            return Core(sum(times) - times[3] - times[4], sum(times))
    raise ValueError(f"no core {core} in /proc/stat")


def rss_bytes(pid: int) -> int:
    """Resident memory, exact (smaps_rollup; the counters in stat and statm lag behind by up to 64 pages a thread)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no Rss in /proc/{pid}/smaps_rollup")


def resident_bytes(pid: int) -> int:
    """Resident memory as the kernel counts it, up to 256 KiB a thread behind, but without walking the page tables:
    for looking often."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
