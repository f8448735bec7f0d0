"""What a piece of work costs a process: instructions counted by Valgrind, or CPU time where there is none.

Instructions do not depend on what else the machine does. They do depend on how Python was built; so both are also
given in turns of a small loop of plain Python, counted in the same way.
"""

from __future__ import annotations

import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal, Protocol

from loadtests.errors import SetupError

Kind = Literal["instructions", "cpu"]

LOOP = """
import sys

class Thing:
    __slots__ = ("count", "name")

    def __init__(self, name, count):
        self.name = name
        self.count = count

def step(things, number):
    thing = Thing(b"room%d" % (number & 255), number)
    before = things.get(thing.name)
    things[thing.name] = thing
    if before is None:
        return len(thing.name)
    return len(b"".join([before.name, b":", str(thing.count).encode()])[2:])

def loop(turns):
    things = {}
    for number in range(turns):
        step(things, number)

loop(int(sys.argv[1]))
"""
TURNS = 20_000
VALGRIND = ("env", "PYTHONHASHSEED=0", "valgrind", "--tool=callgrind")


class Counter(Protocol):
    kind: Kind

    def command(self, node: str) -> str:
        """That of the node, so that it can be counted."""

    def loop(self) -> float:
        """What a turn of the loop costs."""

    def begin(self, pid: int) -> None: ...

    def end(self, pid: int) -> float:
        """Since ``begin``."""


def best_counter(folder: Path) -> Counter:
    return Instructions(folder) if shutil.which("valgrind") and shutil.which("vgdb") else CpuTime()


class Instructions:
    """Of the process itself; the kernel's are not counted."""

    kind: Kind = "instructions"

    def __init__(self, folder: Path) -> None:
        self._dumps = folder / "counts"
        self._counting = False

    def command(self, node: str) -> str:
        options = ("--instr-atstart=no", f"--callgrind-out-file={self._dumps}", "--")
        return f"{shlex.join((*VALGRIND, *options))} {node}"

    def loop(self) -> float:
        return (self._run(TURNS) - self._run(0)) / TURNS

    def _run(self, turns: int) -> int:
        command = [*VALGRIND, "--callgrind-out-file=/dev/null", "--", sys.executable, "-S", "-c", LOOP, str(turns)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(r"Collected : (\d+)", done.stderr)
        if found is None:
            raise SetupError(f"valgrind does not count:\n{done.stderr[-1000:]}")
        return int(found[1])

    def begin(self, pid: int) -> None:
        if not self._counting:
            self._counting = True
            self._tell(pid, "instrumentation", "on")
        self._tell(pid, "zero")

    def end(self, pid: int) -> float:
        self._tell(pid, "dump")
        dumps = list(self._dumps.parent.glob(f"{self._dumps.name}.*"))
        found = [re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE) for dump in dumps]
        for dump in dumps:
            dump.unlink()
        counts = [int(each[1]) for each in found if each is not None]
        if not counts:
            raise SetupError("valgrind has written no counts")
        return float(max(counts))

    def _tell(self, pid: int, *words: str) -> None:
        done = subprocess.run(["vgdb", f"--pid={pid}", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SetupError(f"valgrind cannot be told {words}: {done.stderr.strip()}")


class CpuTime:
    """Nanoseconds, the kernel's part included."""

    kind: Kind = "cpu"

    def __init__(self) -> None:
        self._before_ns = 0

    def command(self, node: str) -> str:
        return node

    def loop(self) -> float:
        turns = 10 * TURNS
        return min(self._run(turns) - self._run(0) for _ in range(3)) / turns

    def _run(self, turns: int) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-S", "-c", LOOP, str(turns)], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e9

    def begin(self, pid: int) -> None:
        self._before_ns = _cpu_ns(pid)

    def end(self, pid: int) -> float:
        return float(_cpu_ns(pid) - self._before_ns)


def _cpu_ns(pid: int) -> int:
    """Of all its threads (/proc/<pid>/task/<tid>/schedstat, first field)."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((tasks / task / "schedstat").read_text().split()[0]) for task in os.listdir(tasks))
