"""What tests measured along the way, for the table at the end of the run."""

from __future__ import annotations

FIGURES: list[tuple[str, float, str]] = []


def note(what: str, value: float, unit: str) -> None:
    """Keep one figure."""
    FIGURES.append((what, value, unit))


def table() -> list[str]:
    """One line per figure: the median, and how often it was taken and the highest if that was more than once."""
    taken: dict[tuple[str, str], list[float]] = {}
    for what, value, unit in FIGURES:
        taken.setdefault((what, unit), []).append(value)
    lines = []
    for (what, unit), values in taken.items():
        middle, highest = sorted(values)[len(values) // 2], max(values)
        times = f"  (median of {len(values)}, highest {highest:.4g})" if len(values) > 1 else ""
        lines.append(f"{what:<58} {middle:>10.4g} {unit}{times}")
    return lines
