"""The report of a run as one page that needs nothing else: figures, goals, what speaks against them, plots. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from loadtests.curves import merged
from loadtests.plot import Bars, Chart, Series, bars_figure, duration, figure, number
from loadtests.result import Distribution, Plot, Result, Split, Sweep, Timeline

UNITS_US: Final = {"µs": 1.0, "ms": 1e3, "s": 1e6}


def page(result: Result, facts: Mapping[str, object]) -> str:
    """``facts``: when and where it was measured."""
    title = f"Roomcast load test: {result.scenario}"
    plots = "".join(drawn for plot in result.plots if (drawn := _drawn(plot, result)))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
<h1>{escape(title)}</h1>
{_facts(result.parameters)}
{_facts(facts)}
{_verdicts(result)}
{_table(result)}
{plots}
</html>
"""


def _facts(facts: Mapping[str, object]) -> str:
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(_plain(value))}</dd></div>" for name, value in facts.items()
    )
    return f"<dl>{rows}</dl>"


def _plain(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _verdicts(result: Result) -> str:
    """Goals, notes and faults, the worst first; nothing if there are none."""
    lines = [f'<li class="bad">fault: {escape(fault)}</li>' for fault in result.faults()]
    for goal in result.goals:
        measured = result.measured(goal)
        if measured is not None:
            kind, word = ("good", "met") if goal.met(measured) else ("bad", "missed")
            text = f"{result.title(goal.figure)} {goal}: {measured:,.4g}"
            lines.append(f'<li class="{kind}"><strong>goal {word}</strong> {escape(text)}</li>')
    lines += [f'<li class="note">note: {escape(note)}</li>' for note in result.notes]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def _table(result: Result) -> str:
    servers, compared = result.servers, set(result.pair) <= set(result.servers)
    heads = [
        f'<th><b style="background: var(--c{place % 6})"></b>{escape(name)}</th>' for place, name in enumerate(servers)
    ]
    if compared:
        heads.append(f"<th>{escape(' ÷ '.join(result.pair))}</th>")
    rows = []
    for column in result.columns:
        values = [result.median(server, column.figure) for server in servers]
        if all(value is None for value in values):
            continue
        cells = [column.text(value) for value in values]
        if compared:
            ratio = None if column.percent else result.ratio(column.figure)
            cells.append("–" if ratio is None else f"{ratio:.2f}")
        rows.append(f"<tr><th>{escape(column.title)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    samples = len(result.samples) // max(1, len(servers))
    corner = "median" if samples > 1 else ""
    return (
        f'<div class="wide"><table><thead><tr><th>{corner}</th>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _drawn(plot: Plot, result: Result) -> str:
    """Empty if no sample has what it would show."""
    if isinstance(plot, Split):
        return _split(plot, result)
    if isinstance(plot, Timeline):
        chart = _timeline(plot, result)
    elif isinstance(plot, Distribution):
        chart = _distribution(plot, result)
    else:
        chart = _sweep(plot, result)
    return figure(chart) if any(series.points for series in chart.series) else ""


def _timeline(plot: Timeline, result: Result) -> Chart:
    """A line for each sample, in the colour of its server; of several servers each has its name."""
    series = []
    many = len(result.servers) > 1
    for sample in result.samples:
        colour = result.servers.index(sample.server)
        for place, (name, label) in enumerate(plot.curves.items()):
            words = [sample.server] * many + [label] * bool(label)
            points = [(at_s, value / plot.per) for at_s, value in sample.curves.get(name, ())]
            if points:
                alone = not many and len(plot.curves) > 1
                series.append(Series(", ".join(words), points, place if alone else colour, 0 if alone else place))
    return Chart(plot.title, plot.unit, series, marks=result.marks)


def _distribution(plot: Distribution, result: Result) -> Chart:
    """Of all samples of a server together."""
    series = []
    factor = UNITS_US[plot.unit]
    for colour, server in enumerate(result.servers):
        every = [s.curves[plot.curve] for s in result.samples if s.server == server and s.curves.get(plot.curve)]
        points, so_far = list[tuple[float, float]](), 0.0
        values = merged(every)
        total = sum(count for _, count in values)
        for edge, count in values:
            so_far += count
            points.append((max(edge, 1e-3) * factor, so_far / total * 100))
        series.append(Series(server, points, colour))
    return Chart(plot.title, "% that took at most so long", series, "", x_log=True, x_label=duration)


def _sweep(plot: Sweep, result: Result) -> Chart:
    series = []
    for colour, server in enumerate(result.servers):
        found = [(x, result.median(server, name)) for x, name in plot.points]
        series.append(Series(server, [(x, value) for x, value in found if value is not None], colour))
    return Chart(plot.title, plot.unit, series, plot.x_unit, x_log=True, x_label=number, dots=True)


def _split(plot: Split, result: Result) -> str:
    rows: list[tuple[str, Sequence[float]]] = []
    for server in result.servers:
        values = [result.median(server, name) for name in plot.parts]
        if any(value is not None for value in values):
            rows.append((server, [value or 0.0 for value in values]))
    return bars_figure(Bars(plot.title, plot.unit, list(plot.parts.values()), rows)) if rows else ""


_STYLE: Final = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c2126; --soft: #656d76; --grid: #8883;
  --c0: #2563c9; --c1: #c2571a; --c2: #1f8a5f; --c3: #8a3fb0; --c4: #96760a; --c5: #b3294a;
  --good: #187a4b; --bad: #b8283f; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --ink: #dfe3e7; --soft: #98a1ab; --grid: #8884;
  --c0: #6ea4ff; --c1: #f0914f; --c2: #4fc795; --c3: #c68be6; --c4: #d9b640; --c5: #f2758f;
  --good: #5acb92; --bad: #ff7f92; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 800px; margin: 2rem auto; padding: 0 1rem;
  background: var(--ground); color: var(--ink); }
h1 { font-size: 1.4rem; } h2 { font-size: 1rem; margin: 0; } small { color: var(--soft); font-weight: normal; }
dl { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; margin: .75rem 0; } dd { margin: 0; }
dt { color: var(--soft); font-size: .8rem; }
ul { list-style: none; padding: .6rem 1rem; border-left: 3px solid var(--grid); }
.good strong { color: var(--good); } .bad, .bad strong { color: var(--bad); } .note { color: var(--soft); }
.wide { overflow-x: auto; margin-top: 1.5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: normal; } td, thead th + th { text-align: right; white-space: nowrap; }
thead th { font-weight: 600; vertical-align: bottom; }
tr > :first-child { padding-left: 0; } td, th { padding: .25rem .6rem; border-bottom: 1px solid var(--grid); }
b { display: inline-block; width: .8em; height: .8em; margin-right: .35em; border-radius: 2px;
  background: var(--soft); }
figure { margin: 2rem 0; overflow-x: auto; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; }
figcaption p { margin: 0 0 0 auto; font-size: .85rem; } span { margin-left: 1rem; white-space: nowrap; }
i { display: inline-block; width: 1.4em; border-top: 3px solid; margin-right: .4em; vertical-align: middle; }
i.dashed { border-top-style: dashed; }
i.upright { width: 0; height: 1em; border-top: 0; border-left: 2px dashed var(--soft); }
svg { width: 100%; min-width: 560px; height: auto; } polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.grid { stroke: var(--grid); } .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
text { font-size: 11px; fill: var(--soft); } .y { text-anchor: end; } .x { text-anchor: middle; }
"""
