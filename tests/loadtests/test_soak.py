"""A soak of seconds against a real node; and that growth and loss are not passed over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.soak import BOUNDS, growing

CHECKOUT = Path(__file__).parents[2]
MOMENT = {
    **{"at_s": 1.0, "p50_us": 900.0, "p99_us": 2000.0, "deliveries_per_s": 10.0, "came_and_went": 5.0},
    **{"rss_mib": 70.0, "redis_mib": 2.0, "connections": 10.0, "fds": 20.0, "tasks": 9.0},
}


def test_everything_that_may_not_grow_is_looked_at() -> None:
    for name in BOUNDS:
        moments = [{**MOMENT, "at_s": float(n), name: MOMENT[name] + n} for n in range(100)]
        assert growing(moments) == [name]
    assert not growing([MOMENT] * 100)


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.system
@pytest.mark.timeout(180)
def test_a_short_soak_loses_nothing_and_draws_it(tmp_path: Path) -> None:
    report, figures = tmp_path / "soak.html", tmp_path / "soak.json"
    size = ["--hours", "0.008", "--connections", "50", "--rate", "20"]
    done = subprocess.run(
        [sys.executable, "-m", "loadtests", "soak", *size, "--report", str(report), "--json", str(figures)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [sample] = json.loads(figures.read_text())["samples"]
    assert sample["lost"] == sample["duplicated"] == sample["grown"] == 0
    assert sample["kills"] >= 1 and sample["reconnects"] >= sample["kills"]
    assert sample["came_and_went"] > 0
    assert report.read_text().count("<svg") == 7
