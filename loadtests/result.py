"""What a scenario found: samples, their medians, ratios, goals, and what of it is drawn. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal, NamedTuple

FAULTS = ("lost", "duplicated", "reordered", "early", "closed", "failed")
"""Figures that must be 0: one of them in any sample, the baseline's included, makes the run void."""


class Column(NamedTuple):
    """How one figure is shown."""

    figure: str
    title: str
    digits: int = 0
    percent: bool = False

    def text(self, value: float | None) -> str:
        if value is None:
            return "–"
        return f"{value * 100:.0f} %" if self.percent else f"{value:,.{self.digits}f}"


class Goal(NamedTuple):
    """A bound on the node's median, or on its ratio to the baseline's. ``stated_for`` names where it was set."""

    figure: str
    of: Literal["value", "ratio"]
    at_least: float | None
    at_most: float | None
    stated_for: str

    def met(self, measured: float) -> bool:
        low = self.at_least is None or measured >= self.at_least
        return low and (self.at_most is None or measured <= self.at_most)

    def __str__(self) -> str:
        sign, bound = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        unit = " × baseline" if self.of == "ratio" else ""
        return f"{sign} {bound:,.10g}{unit} at {self.stated_for}"


Curves = Mapping[str, Sequence[tuple[float, float]]]
"""By name: values over seconds since the beginning of the measurement, or a distribution as (upper edge, how many)."""


@dataclass(frozen=True)
class Sample:
    """One server, measured once."""

    server: str
    figures: Mapping[str, float]
    curves: Curves = field(default_factory=dict)


class Timeline(NamedTuple):
    """Plot: curves over time. ``curves`` are names and how each is labelled; ``per`` divides their values."""

    title: str
    unit: str
    curves: Mapping[str, str]
    per: float = 1.0


class Distribution(NamedTuple):
    """Plot: the share of values that were at most so large."""

    title: str
    curve: str
    unit: str = "µs"


class Split(NamedTuple):
    """Plot: a bar per server, made of the medians of figures. ``parts`` are figures and their labels."""

    title: str
    unit: str
    parts: Mapping[str, str]


class Sweep(NamedTuple):
    """Plot: medians of figures over a parameter. ``points`` are its values and the figure measured there."""

    title: str
    unit: str
    x_unit: str
    points: Sequence[tuple[float, str]]


Plot = Timeline | Distribution | Split | Sweep


@dataclass(frozen=True)
class Result:
    """A finished scenario. ``notes`` are remarks on how far the figures can be trusted."""

    scenario: str
    parameters: Mapping[str, object]
    columns: Sequence[Column]
    goals: Sequence[Goal]
    samples: Sequence[Sample]
    notes: Sequence[str] = field(default_factory=list)
    pair: tuple[str, str] = ("node", "baseline")
    """Which samples ``ratio`` and goals compare: the measured, and what they are measured against."""
    plots: Sequence[Plot] = ()
    marks: Sequence[tuple[float, str]] = ()
    """What happened at which second of the timelines."""

    @property
    def servers(self) -> list[str]:
        """In the order of their first samples."""
        return list(dict.fromkeys(sample.server for sample in self.samples))

    def title(self, figure: str) -> str:
        """What the column of a figure is called."""
        return next(column.title for column in self.columns if column.figure == figure)

    def median(self, server: str, figure: str) -> float | None:
        """None if no sample of the server has the figure."""
        values = [s.figures[figure] for s in self.samples if s.server == server and figure in s.figures]
        return median(values) if values else None

    def ratio(self, figure: str) -> float | None:
        """The first of the pair's median to the second's; None without both, or to a second of 0."""
        measured, against = (self.median(server, figure) for server in self.pair)
        return measured / against if measured is not None and against else None

    def measured(self, goal: Goal) -> float | None:
        return self.ratio(goal.figure) if goal.of == "ratio" else self.median(self.pair[0], goal.figure)

    def faults(self) -> list[str]:
        """One line per sample that lost, doubled or reordered a message or a connection; empty when all is well."""
        lines = []
        for number, sample in enumerate(self.samples, 1):
            found = [f"{sample.figures[name]:,.0f} {name}" for name in FAULTS if sample.figures.get(name)]
            if found:
                lines.append(f"sample {number} ({sample.server}): {', '.join(found)}")
        return lines

    def as_json(self) -> dict[str, object]:
        return {
            "scenario": self.scenario,
            "parameters": dict(self.parameters),
            "samples": [{"server": s.server, **s.figures} for s in self.samples],
            "medians": {name: {c.figure: self.median(name, c.figure) for c in self.columns} for name in self.servers},
            "ratios": {c.figure: self.ratio(c.figure) for c in self.columns},
            "goals": [
                {"goal": str(g), "figure": g.figure, "of": g.of, "measured": value, "met": g.met(value)}
                for g in self.goals
                if (value := self.measured(g)) is not None
            ],
            "notes": list(self.notes),
            "faults": self.faults(),
        }
