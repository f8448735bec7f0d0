"""What the hot paths of a node may cost, and whether they cost more now. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

MARGIN: Final = 0.15
"""Instructions over the budget by more than this are a fault. Counted again, beside whatever the machine does, they
differ by 1 %; in turns of the loop between two builds of Python 3.11 (Debian's, and one not optimised) by 8 %."""


class Line(NamedTuple):
    """One path: costs in turns of the loop."""

    name: str
    measured: float
    budget: float | None

    @property
    def difference(self) -> float | None:
        """As a share of the budget."""
        return None if self.budget is None else self.measured / self.budget - 1

    @property
    def over(self) -> bool:
        return self.difference is not None and self.difference > MARGIN

    @property
    def under(self) -> bool:
        """So far that the budget would not notice if it were lost again."""
        return self.difference is not None and self.difference < -MARGIN


def compare(measured: Mapping[str, float], budget: Mapping[str, float]) -> list[Line]:
    """In the order measured. A path without a budget is none over it."""
    return [Line(name, turns, budget.get(name)) for name, turns in measured.items()]
