"""Charts: round ticks, everything drawn inside."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.plot import BAR, HEIGHT, WIDTH, Bars, Chart, Series, bars_svg, duration, log_ticks, number, svg, ticks


def parsed(drawing: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawing)  # noqa: S314 - our own, made a moment ago


finite = st.floats(-1e9, 1e9, allow_nan=False)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 0.7, [0, 0.2, 0.4, 0.6, 0.8]),
        (98, 103, [98, 99, 100, 101, 102, 103]),
        (5, 5, [5, 6, 7, 8, 9, 10]),
        (0, 1e-300, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_ticks_are_round_and_cover_the_values(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@settings(deadline=None)
@given(finite, finite)
def test_ticks_always_cover_and_are_few(one: float, other: float) -> None:
    low, high = sorted((one, other))
    found = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), 1.0)
    assert found[0] <= low + slack and found[-1] >= high - slack
    assert 2 <= len(found) <= 9 and found == sorted(set(found))


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (9500, "9500"), (20_000, "20 k"), (1.5e6, "1.5 M"), (-2e9, "-2 G")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5 µs"), (250, "250 µs"), (5000, "5 ms"), (20_000, "20 ms"), (3e6, "3 s")]
)
def test_durations_have_their_unit(value: float, text: str) -> None:
    assert duration(value) == text


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (10, 10_000, [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]),
        (3, 30, [2, 5, 10, 20, 50]),
        (1, 1, [1, 2]),
        (0.5, 2e6, [0.1, 1, 10, 100, 1000, 10_000, 100_000, 1e6, 1e7]),
    ],
)
def test_ticks_of_a_logarithmic_axis(low: float, high: float, expected: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(expected)


@settings(deadline=None)
@given(st.floats(1e-3, 1e9), st.floats(1e-3, 1e9))
def test_logarithmic_ticks_always_cover(one: float, other: float) -> None:
    low, high = sorted((one, other))
    found = log_ticks(low, high)
    assert found[0] <= low * (1 + 1e-6) and found[-1] >= high * (1 - 1e-6) and len(found) >= 2


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-3, 1e9), finite), min_size=1, max_size=20),
    st.booleans(),
)
def test_all_points_lie_inside_the_drawing(points: list[tuple[float, float]], x_log: bool) -> None:
    drawing = parsed(svg(Chart("t", "u", [Series("s", points)], x_log=x_log)))
    line = drawing.find("polyline")
    assert line is not None
    drawn = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert len(drawn) == len(points)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in drawn)


def test_higher_is_further_up_and_later_further_right() -> None:
    drawing = parsed(svg(Chart("t", "u", [Series("s", [(0, 0), (10, 5)])], marks=[(5, "cut")])))
    line, mark = drawing.find("polyline"), drawing.find("line[@class='mark']")
    assert line is not None and mark is not None
    (x0, y0), (x1, y1) = (map(float, pair.split(",")) for pair in line.attrib["points"].split())
    assert x0 < float(mark.attrib["x1"]) < x1 and y1 < y0
    assert mark.findtext("title") == "cut"


def test_a_chart_without_points_is_an_error() -> None:
    with pytest.raises(ValueError, match="no points"):
        svg(Chart("empty", "u", [Series("s", [])]))


def test_bars_are_as_long_as_their_values_and_end_to_end() -> None:
    drawing = parsed(bars_svg(Bars("t", "u", ["user", "kernel"], [("node", [1.0, 3.0]), ("baseline", [0.5, 0.5])])))
    first, second, third, _ = drawing.findall("rect")
    widths = [float(bar.attrib["width"]) for bar in (first, second, third)]
    begins = [float(bar.attrib["x"]) for bar in (first, second, third)]
    assert widths == pytest.approx([widths[0], 3 * widths[0], widths[0] / 2], abs=0.2)
    assert begins == pytest.approx([begins[0], begins[0] + widths[0], begins[0]], abs=0.2)
    assert begins[1] + widths[1] < WIDTH
    assert [text.text for text in drawing.findall("text")] == ["node", "4 = 1 + 3", "baseline", "1 = 0.5 + 0.5"]
    assert float(third.attrib["y"]) >= BAR


def test_bars_of_nothing_are_an_error_and_of_zero_are_not() -> None:
    with pytest.raises(ValueError, match="no rows"):
        bars_svg(Bars("t", "u", ["part"], []))
    assert "<rect" in bars_svg(Bars("t", "u", ["part"], [("idle", [0.0])]))
