"""The scenario ``rolling`` in miniature, and its arithmetic."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.crowd import peak_to_mean

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.redis
@pytest.mark.nginx
@pytest.mark.system
def test_two_nodes_are_restarted_and_nothing_is_missed(tmp_path: Path) -> None:
    report = tmp_path / "rolling.json"
    arguments = ["rolling", "--connections", "40", "--nodes", "2", "--drain", "0.5", "--json", str(report)]
    command = [sys.executable, "-m", "loadtests", *arguments]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    [sample] = found["samples"]
    assert sample["restarts"] == 2 and sample["published"] > 50
    assert sample["reconnects"] >= 43, "everybody was moved once"
    assert (sample["lost"], sample["duplicated"], sample["resets"], sample["presence_events"]) == (0, 0, 0, 0)
    assert found["faults"] == []


def test_peaks_are_what_came_within_a_window_to_what_would_have() -> None:
    even = [number / 10 for number in range(101)]
    assert peak_to_mean(even, 1.0) == pytest.approx(1, abs=0.1)
    assert peak_to_mean([*even, *[5.0] * 50], 1.0) == pytest.approx(60 / 15.1, rel=0.05)
    assert peak_to_mean([1.0], 1.0) == 0
    assert peak_to_mean([1.0, 1.1], 1.0) == 1
