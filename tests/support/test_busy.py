"""What bounds give for a busy machine."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support import busy
from tests.support.waiting import eventually_sync


def test_more_work_than_cores_counts_as_busy_and_a_new_test_begins_at_nothing() -> None:
    if not busy.PRESSURE.exists():
        assert busy.busy_s() == 0.0
        return
    work = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        eventually_sync(lambda: busy.busy_s() > 0.2)
        before_s = busy.busy_s()
        busy.begin()
        assert busy.busy_s() < before_s
    finally:
        for each in work:
            each.kill()
            each.wait()
