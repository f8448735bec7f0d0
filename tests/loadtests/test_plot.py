"""Charts: round ticks, everything drawn inside, nothing from outside becomes markup."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.plot import HEIGHT, WIDTH, Chart, Series, number, page, svg, ticks


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


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=20), st.booleans())
def test_all_points_lie_inside_the_drawing(points: list[tuple[float, float]], from_zero: bool) -> None:
    drawing = parsed(svg(Chart("t", "u", [Series("s", points)], from_zero=from_zero)))
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


def test_a_page_needs_nothing_else_and_text_stays_text() -> None:
    evil = "<script>alert(1)</script>&"
    chart = Chart(evil, evil, [Series(evil, [(0, 1), (1, 2)])], x_unit=evil, marks=[(0.5, evil)])
    text = page(evil, {evil: evil}, [chart], [evil])
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.search(r"(src|href|url\(|@import|https?:)", text)
