from __future__ import annotations

import os
import time

import pytest

from loadtests.accounting import Core, core_time, process_cpu, rss_bytes


def test_cpu_of_a_process_is_what_it_used() -> None:
    before = process_cpu(os.getpid())
    until_s = time.process_time() + 0.2
    while time.process_time() < until_s:
        pass
    used = process_cpu(os.getpid()).since(before)
    assert 0.17 < used.total_s < 0.6
    assert used.total_s == used.user_s + used.system_s


def test_memory_of_a_process_grows_by_what_it_holds() -> None:
    before = rss_bytes(os.getpid())
    held = b"x" * 32 * 2**20
    assert 31 * 2**20 < rss_bytes(os.getpid()) - before < 40 * 2**20
    del held


def test_busy_share_of_a_core() -> None:
    assert Core(5, 20).busy_share_since(Core(2, 10)) == pytest.approx(0.3)
    assert Core(2, 10).busy_share_since(Core(2, 10)) == 0
    core = core_time(min(os.sched_getaffinity(0)))
    assert 0 < core.busy_s <= core.total_s
    with pytest.raises(ValueError, match="no core 4096"):
        core_time(4096)
