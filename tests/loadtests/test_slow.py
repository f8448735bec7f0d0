"""A small run of the scenario ``slow`` against a real node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(120)]
CHECKOUT = Path(__file__).parents[2]


def test_stalled_readers_are_cut_and_the_others_lose_nothing(tmp_path: Path) -> None:
    report = tmp_path / "slow.json"
    size = ["--readers", "20", "--stalled", "3", "--rate", "50", "--seconds", "1", "--pairs", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "loadtests", "slow", *size, "--json", str(report)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    without, with_them = found["samples"]
    assert (without["server"], with_them["server"]) == ("without", "with")
    assert without["deliveries"] == with_them["deliveries"] == 20 * 50
    assert with_them["failed"] == 0 and 10 < with_them["gone_s"] < 20
    assert found["ratios"]["p99_us"] == pytest.approx(with_them["p99_us"] / without["p99_us"])
    assert "with ÷ without" in done.stdout
