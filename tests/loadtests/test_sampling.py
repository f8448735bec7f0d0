from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from loadtests.result import Sample
from loadtests.sampling import Watch, trust_notes


def sample(server: str, *, load: float = 0.5, core: float = 0.4, own: float = 0.4) -> Sample:
    return Sample(server, {"load_core_busy": load, "server_core_busy": core, "cpu_share": own})


def test_a_quiet_machine_with_headroom_needs_no_note() -> None:
    assert trust_notes([sample("node"), sample("baseline", load=0.94, core=0.49)], pinned=True) == []


def test_a_load_side_at_its_limit_is_told_for_the_server_it_limited() -> None:
    (note,) = trust_notes([sample("node"), sample("baseline", load=0.96)], pinned=True)
    assert note.startswith("the load core was over 95 % busy while the baseline ran")


def test_a_neighbour_on_the_servers_core_is_told() -> None:
    (note,) = trust_notes([sample("node", core=0.9, own=0.6), sample("baseline")], pinned=True)
    assert note.startswith("up to 30% of the server's core went to something else")


def test_one_core_for_everything_is_told() -> None:
    (note,) = trust_notes([Sample("node", {"cpu_share": 0.5})], pinned=False)
    assert note.startswith("only one core")


def test_a_watch_sums_its_processes_and_survives_their_end() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        watch = Watch(lambda: [os.getpid(), other.pid])
        until_s = time.process_time() + 0.1
        while time.process_time() < until_s:
            pass
        other.communicate(b"\n")
    figures = watch.close()
    assert figures["cpu_s"] >= 0.07
    assert figures["user_percent"] + figures["kernel_percent"] == pytest.approx(figures["cpu_share"] * 100)
    assert all(value >= 0 for points in watch.curves.values() for _, value in points)
    assert watch.curves["rss_mib"][-1][1] > 1
