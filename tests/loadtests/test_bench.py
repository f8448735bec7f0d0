"""``roomcast bench`` as a user runs it, at a fiftieth of its size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.benching import parts

pytestmark = [pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(180)]
CHECKOUT = Path(__file__).parents[2]


def bench(*words: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server", "bench", "--scale", "0.02", *words]
    environment = {"PATH": path, "HOME": str(Path.home()), "COLUMNS": "200"}
    return subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)


def test_every_part_is_measured_and_told() -> None:
    done = bench("--json")
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)
    assert [report["scenario"] for report in reports] == [
        *("fanout", "fanout", "chat", "handshake", "idle", "reconnect-storm", "presence-storm"),
    ]
    assert not any(report["faults"] for report in reports)
    for part, report in zip(parts(0.02), reports, strict=True):
        assert part.title in done.stderr
        for figure in part.figures:
            assert report["medians"]["node"][figure] is not None


def test_without_redis_or_a_compiler_it_says_what_is_missing(tmp_path: Path) -> None:
    done = bench(path=str(tmp_path))
    assert done.returncode == 2
    assert "not measured: no C compiler: install one" in done.stderr
