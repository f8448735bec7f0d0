"""Charts in a page that needs nothing else: HTML with SVG, dark or light as the reader likes. Pure.

A report is :func:`page`; each :class:`Chart` has time (or whatever is counted) to the right and one unit upwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final, NamedTuple

WIDTH: Final = 760
HEIGHT: Final = 220
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 10, 28
"""Margins of the drawing, for the labels."""
TICKS: Final = 5
COLOURS: Final = ("#2f6fdb", "#d9662b", "#2a9d6f", "#a14bc2", "#b58900", "#c2334d")


class Series(NamedTuple):
    name: str
    points: Sequence[tuple[float, float]]


class Chart(NamedTuple):
    title: str
    unit: str
    series: Sequence[Series]
    x_unit: str = "s"
    marks: Sequence[tuple[float, str]] = ()
    """Places on the x axis at which something happened, and what."""
    from_zero: bool = True
    """The y axis begins at 0; otherwise near the lowest value."""


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """Round numbers that cover ``low … high``, about ``count`` of them, the first and last not inside it."""
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        high = low + max(1.0, abs(low))  # nothing but one value
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def number(value: float) -> str:
    """Short: 1.5 M, 20 k, 0.25."""
    for limit, letter in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= limit:
            return f"{value / {' G': 1e9, ' M': 1e6, ' k': 1e3}[letter]:g}{letter}"
    return f"{value:g}"


class _Scale(NamedTuple):
    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)


def svg(chart: Chart) -> str:
    """One chart. ValueError if it has no point at all."""
    values = [y for series in chart.series for _, y in series.points]
    places = [x for series in chart.series for x, _ in series.points]
    if not values:
        raise ValueError(f"the chart {chart.title!r} has no points")
    ys = ticks(min([*values, 0.0] if chart.from_zero else values), max(values))
    xs = ticks(min(places), max(places), 8)
    across = _Scale(xs[0], xs[-1], LEFT, WIDTH - RIGHT)
    up = _Scale(ys[0], ys[-1], HEIGHT - BOTTOM, TOP)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">']
    for y in ys:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>')
        parts.append(f'<text class="y" x="{LEFT - 6}" y="{up(y) + 4:.1f}">{number(y)}</text>')
    for x in xs:
        parts.append(f'<text class="x" x="{across(x):.1f}" y="{HEIGHT - 8}">{number(x)}</text>')
    for x, what in chart.marks:
        line = f'<line class="mark" x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}">'
        parts.append(f"{line}<title>{escape(what)}</title></line>")
    for series, colour in zip(chart.series, _colours(len(chart.series)), strict=True):
        drawn = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in series.points)
        parts.append(f'<polyline stroke="{colour}" points="{drawn}"><title>{escape(series.name)}</title></polyline>')
    return "\n".join([*parts, "</svg>"])


def _colours(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def figure(chart: Chart) -> str:
    """The chart with its heading and legend."""
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{escape(series.name)}</span>'
        for series, colour in zip(chart.series, _colours(len(chart.series)), strict=True)
    )
    if chart.marks:
        happened = dict.fromkeys(what for _, what in chart.marks)
        legend += f'<span><i class="dashed"></i>{escape(", ".join(happened))}</span>'
    heading = f"{escape(chart.title)} <small>{escape(chart.unit)}, over {escape(chart.x_unit)}</small>"
    return f"<figure><figcaption><h2>{heading}</h2><p>{legend}</p></figcaption>\n{svg(chart)}</figure>"


def page(title: str, facts: Mapping[str, object], charts: Sequence[Chart], notes: Sequence[str] = ()) -> str:
    """A whole report: what was run, remarks, and the charts."""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts.items())
    remarks = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
<h1>{escape(title)}</h1>
<dl>{rows}</dl>
<ul>{remarks}</ul>
{"".join(figure(chart) for chart in charts)}
</html>
"""


_STYLE: Final = """
:root { color-scheme: light dark; --grid: #8884; --soft: #777; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 800px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1rem; margin: 0; } small { color: var(--soft); font-weight: normal; }
dl { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; } dt { color: var(--soft); font-size: .8rem; } dd { margin: 0; }
figure { margin: 1.5rem 0; } figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; }
figcaption p { margin: 0; font-size: .85rem; } span { margin-left: 1rem; white-space: nowrap; }
i { display: inline-block; width: .8em; height: .8em; margin-right: .35em; border-radius: 2px; }
i.dashed { width: 0; border-left: 2px dashed var(--soft); border-radius: 0; }
svg { width: 100%; height: auto; } polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.grid { stroke: var(--grid); } .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
text { font-size: 11px; fill: var(--soft); } .y { text-anchor: end; } .x { text-anchor: middle; }
"""
