"""Charts as SVG in figures of HTML, coloured by the page's style sheet. Pure.

A :class:`Chart` has lines over time or any other number, which may be spaced by its logarithm; a :class:`Bars` compares
a few servers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final, NamedTuple

WIDTH: Final = 760
HEIGHT: Final = 220
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 10, 28
"""Margins of the drawing, for the labels."""
TICKS: Final = 5
COLOURS: Final = 6
"""How many the style sheet has: --c0 …"""
DASHES: Final = ("", "6 3", "2 3")
BAR, GAP, NAME, SUM = 22, 10, 130, 170
"""Heights, and the room for names and sums."""
FAINTER: Final = 0.45
"""Of each further part of a bar."""


def number(value: float) -> str:
    """Short: 1.5 M, 20 k, 0.25."""
    for limit, letter in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= limit:
            return f"{value / {' G': 1e9, ' M': 1e6, ' k': 1e3}[letter]:g}{letter}"
    return f"{value:g}"


def duration(value_us: float) -> str:
    """250 µs, 5 ms, 2 s."""
    for limit, unit in ((1e6, "s"), (1e3, "ms")):
        if value_us >= limit:
            return f"{value_us / limit:g} {unit}"
    return f"{value_us:g} µs"


class Series(NamedTuple):
    """``colour`` is the place of its server among all, ``dash`` that of its kind among those of one server. Series of
    the same name share an entry of the legend."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dash: int = 0


class Chart(NamedTuple):
    title: str
    unit: str
    series: Sequence[Series]
    x_unit: str = "s"
    marks: Sequence[tuple[float, str]] = ()
    """Places on the x axis at which something happened, and what."""
    x_log: bool = False
    x_label: Callable[[float], str] = number
    dots: bool = False
    """Whether points are marked: for the few of a sweep."""


class Bars(NamedTuple):
    title: str
    unit: str
    parts: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float]]]
    """Each server with its parts, in the order of the servers."""


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """Round numbers that cover ``low … high``, about ``count`` of them, the first and last not inside it."""
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        high = low + max(1.0, abs(low))  # nothing but one value
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that cover ``low … high``, with 2 and 5 times each where there are few; from the last that is not
    above ``low`` to the first that is not below ``high``. Both must be above 0."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 4 else (1,)
    all_ = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    begin = max((tick for tick in all_ if tick <= low * (1 + 1e-9)), default=all_[0])
    end = min((tick for tick in all_ if tick >= high * (1 - 1e-9) and tick > begin), default=all_[-1])
    return [tick for tick in all_ if begin <= tick <= end]


class _Scale(NamedTuple):
    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        at = math.log(max(value, self.low)) if self.log else value
        return self.begin + (at - low) / (high - low) * (self.end - self.begin)


def svg(chart: Chart) -> str:
    """One chart. ValueError if it has no point at all."""
    values = [y for series in chart.series for _, y in series.points]
    places = [x for series in chart.series for x, _ in series.points]
    if not values:
        raise ValueError(f"the chart {chart.title!r} has no points")
    ys = ticks(min([*values, 0.0]), max(values))
    xs = log_ticks(min(places), max(places)) if chart.x_log else ticks(min(places), max(places), 8)
    across = _Scale(xs[0], xs[-1], LEFT, WIDTH - RIGHT, chart.x_log)
    up = _Scale(ys[0], ys[-1], HEIGHT - BOTTOM, TOP)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">']
    for y in ys:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>')
        parts.append(f'<text class="y" x="{LEFT - 6}" y="{up(y) + 4:.1f}">{number(y)}</text>')
    for x in xs:
        parts.append(f'<text class="x" x="{across(x):.1f}" y="{HEIGHT - 8}">{escape(chart.x_label(x))}</text>')
    for x, what in chart.marks:
        line = f'<line class="mark" x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}">'
        parts.append(f"{line}<title>{escape(what)}</title></line>")
    for series in chart.series:
        at = [(across(x), up(y)) for x, y in series.points]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        dash = DASHES[series.dash % len(DASHES)]
        style = f'style="stroke: {_colour(series.colour)}"' + (f' stroke-dasharray="{dash}"' if dash else "")
        parts.append(f'<polyline {style} points="{drawn}"><title>{escape(series.name)}</title></polyline>')
        if chart.dots:
            fill = f'style="fill: {_colour(series.colour)}"'
            parts += [f'<circle {fill} cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in at]
    return "\n".join([*parts, "</svg>"])


def bars_svg(bars: Bars) -> str:
    """Rows of stacked parts, each with its sum. ValueError without a row."""
    if not bars.rows:
        raise ValueError(f"the bars {bars.title!r} have no rows")
    longest = max(sum(values) for _, values in bars.rows) or 1.0
    height = len(bars.rows) * (BAR + GAP)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(bars.title)}">']
    along = (WIDTH - NAME - SUM) / longest
    for row, (name, values) in enumerate(bars.rows):
        x, y = float(NAME), row * (BAR + GAP)
        parts.append(f'<text class="y" x="{NAME - 8}" y="{y + BAR / 2 + 4:.1f}">{escape(name)}</text>')
        for part, value in enumerate(values):
            style = f'style="fill: {_colour(row)}; opacity: {FAINTER**part:.2f}"'
            parts.append(
                f'<rect {style} x="{x:.1f}" y="{y}" width="{value * along:.1f}" height="{BAR}">'
                f"<title>{escape(bars.parts[part])} {value:.3g}</title></rect>"
            )
            x += value * along
        split = " + ".join(f"{value:.3g}" for value in values)
        told = f"{sum(values):.3g}" + (f" = {split}" if len(values) > 1 else "")
        parts.append(f'<text x="{x + 8:.1f}" y="{y + BAR / 2 + 4:.1f}">{told}</text>')
    return "\n".join([*parts, "</svg>"])


def _colour(index: int) -> str:
    return f"var(--c{index % COLOURS})"


def figure(chart: Chart) -> str:
    """The chart with its heading and legend."""
    entries = {series.name: series for series in chart.series if series.name}
    legend = "".join(
        f'<span><i class="{"dashed" if series.dash else "line"}" style="border-color: {_colour(series.colour)}"></i>'
        f"{escape(name)}</span>"
        for name, series in entries.items()
    )
    if chart.marks:
        happened = dict.fromkeys(what for _, what in chart.marks)
        legend += f'<span><i class="upright"></i>{escape(", ".join(happened))}</span>'
    return _figure(chart.title, chart.unit + (f", over {chart.x_unit}" if chart.x_unit else ""), legend, svg(chart))


def bars_figure(bars: Bars) -> str:
    legend = "".join(
        f'<span><b style="opacity: {FAINTER**part:.2f}"></b>{escape(name)}</span>'
        for part, name in enumerate(bars.parts if len(bars.parts) > 1 else ())
    )
    return _figure(bars.title, bars.unit, legend, bars_svg(bars))


def _figure(title: str, unit: str, legend: str, drawing: str) -> str:
    heading = f"{escape(title)} <small>{escape(unit)}</small>"
    return f"<figure><figcaption><h2>{heading}</h2><p>{legend}</p></figcaption>\n{drawing}</figure>"
