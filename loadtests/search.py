"""Finds the highest rate that a server keeps up with. Pure: it is told what each tried rate came to."""

from __future__ import annotations

from math import sqrt
from typing import Final

STEP: Final = 4.0
"""Each rate tried on the way up is so many times the one before."""
PRECISION: Final = 1.2
"""Good enough: the lowest rate that was too much is at most so many times the highest that was not."""


class Search:
    """Up in steps of ``STEP`` until a rate is too much, then halfway (geometrically) between the two, until they are
    ``PRECISION`` apart. ``rate`` is what to try next, in messages/s; None: done."""

    def __init__(self, first: float, highest: float) -> None:
        """``highest`` is the most that is ever tried."""
        self.held = 0.0
        """The highest rate kept up with; 0: none."""
        self.too_much: float | None = None
        self.rate: float | None = min(first, highest)
        self._highest = highest

    def kept_up(self) -> None:
        """The tried rate was no trouble. Not even with a full core is it the end: who finds several messages at once
        needs less for each."""
        assert self.rate is not None
        self.held = self.rate
        if self.held >= self._highest:
            self.rate = None
        elif self.too_much is None:
            self.rate = min(self.held * STEP, self._highest)
        else:
            self._halfway()

    def fell_behind(self) -> None:
        assert self.rate is not None
        self.too_much = self.rate
        if self.held:
            self._halfway()
        else:
            self.rate = None

    def _halfway(self) -> None:
        assert self.too_much is not None
        done = self.too_much / self.held <= PRECISION
        self.rate = None if done else sqrt(self.too_much * self.held)
