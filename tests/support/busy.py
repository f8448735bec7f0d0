"""How long this machine was busy with something else: what a bound in a test must give.

A bound is asserted as it is promised, plus a small fixed slack, plus ``busy_s()``. On a quiet machine that is next to
nothing, so the bound stays sharp there; on a busy one nobody is blamed for the neighbours.
"""

from __future__ import annotations

from pathlib import Path

PRESSURE = Path("/proc/pressure/cpu")


def waited_s() -> float:
    """Seconds since the boot in which somebody was ready to run and had no core (Linux' pressure stall information). 0
    where the kernel does not tell."""
    try:
        some = PRESSURE.read_text().splitlines()[0]
    except OSError:
        return 0.0
    return int(some.rpartition("total=")[2]) / 1e6


_begun_s = waited_s()


def begin() -> None:
    """A test begins."""
    global _begun_s
    _begun_s = waited_s()


def busy_s() -> float:
    """Of these, since the present test began."""
    return waited_s() - _begun_s
