"""The page of a report: all that was found is on it, it needs nothing from outside, and text stays text."""

from __future__ import annotations

import re

import pytest

from loadtests.page import page
from loadtests.plot import BOTTOM, HEIGHT
from loadtests.result import Column, Curves, Distribution, Goal, Result, Sample, Split, Sweep, Timeline

EVIL = "<script>alert(1)</script>&"
PLOTS = (
    Timeline("Speed", "per second", {"speed": ""}),
    Distribution("Latency", "latency_us"),
    Split("CPU", "µs", {"user": "user", "kernel": "kernel"}),
    Sweep("Growth", "µs", "subscribers", [(10, "user"), (100, "kernel")]),
)


def sample(server: str, speed: float, **more: float) -> Sample:
    curves: Curves = {"speed": [(0.0, speed), (1.0, speed)], "latency_us": [(100.0, 3), (2000.0, 1)]}
    return Sample(server, {"speed": speed, "user": 1.0, "kernel": 2.0, **more}, curves)


def result(**fields: object) -> Result:
    parts: dict[str, object] = {
        "scenario": "fanout",
        "parameters": {"subscribers": 1000},
        "columns": (Column("speed", "speed/s"), Column("share", "share", percent=True)),
        "goals": (Goal("speed", "value", 5.0, None, "1 × 1"), Goal("speed", "ratio", 0.9, None, "1 × 1")),
        "samples": (sample("node", 8.0), sample("baseline", 16.0)),
        "notes": ["noisy"],
        "plots": PLOTS,
        "marks": [(0.5, "cut")],
    }
    return Result(**(parts | fields))  # type: ignore[arg-type]


def test_everything_found_is_on_the_page() -> None:
    text = page(result(samples=(sample("node", 8.0, lost=2), sample("baseline", 16.0))), {"cpu": "fast"})
    for wanted in (
        "1,000",
        "fast",
        "speed/s",
        "8",
        "16",
        "0.50",
        "note: noisy",
        "fault: sample 1 (node): 2 lost",
        "cut",
    ):
        assert wanted in text
    assert re.search(r'class="good"><strong>goal met</strong> speed/s ≥ 5 at 1 × 1: 8<', text)
    assert re.search(r'class="bad"><strong>goal missed</strong> speed/s ≥ 0.9 × baseline at 1 × 1: 0.5<', text)
    assert text.count("<svg") == len(PLOTS)
    assert "prefers-color-scheme: dark" in text


def test_what_was_not_measured_is_left_out() -> None:
    text = page(result(samples=(Sample("node", {"speed": 8.0}),), goals=(), notes=[]), {})
    assert "<svg" not in text and "share" not in text and "<ul>" not in text and "÷" not in text


def test_a_distribution_rises_to_all_of_it() -> None:
    text = page(result(plots=PLOTS[1:2]), {})
    lines = re.findall(r'points="([^"]+)"', text)
    assert len(lines) == 2
    (x0, y0), (x1, y1) = (map(float, pair.split(",")) for pair in lines[0].split())
    ground = HEIGHT - BOTTOM
    assert x1 > x0 and (ground - y0) / (ground - y1) == pytest.approx(3 / 4, abs=0.01)


def test_it_needs_nothing_else_and_text_stays_text() -> None:
    text = page(
        result(scenario=EVIL, parameters={EVIL: EVIL}, notes=[EVIL], samples=(sample(EVIL, 1.0),), marks=[(0.5, EVIL)]),
        {EVIL: EVIL},
    )
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.search(r"(src|href|url\(|@import|https?:)", text)
