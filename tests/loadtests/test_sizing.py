"""From reports to a sizing: planted costs come back, runs are foretold, and what is missing is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from loadtests.calibration import HEARERS, SOURCES, Report, Reports, checks, constants_of
from loadtests.errors import SetupError
from loadtests.growth import SIZES
from loadtests.model import Constants, Rooms
from loadtests.sizing import rooms_of
from tests.loadtests.test_model import CONSTANTS

CHECKOUT = Path(__file__).parents[2]
JOINED = {10: 4.0, 100: 2.0, 1000: 1.0, 10_000: 1.0}
"""Messages per write: a node that is sent much gathers them."""


READS = {"chat": 0.2, "cross-node": 1.0, "1 master": 0.05, "3 masters": 0.25}
"""By Redis, per message: so many of those that a node sends come together."""


def sample(server: str = "node", /, **figures: float) -> dict[str, Any]:
    return {"server": server, **figures}


def per_delivery(constants: Constants, members: float, joined: float) -> float:
    alone = 1 / joined
    return constants.write_us * alone + constants.joined_us * (1 - alone) + constants.heard_us * alone / members


def redis_us(constants: Constants, run: str, nodes: int, rate: float = float("inf")) -> float:
    """Per message, of a run whose messages are heard by all of its nodes."""
    reads_us = READS[run] * (constants.read_us + nodes * constants.sent_us)
    return constants.append_us + reads_us + nodes * constants.redis_beat_us / rate


def planted(constants: Constants = CONSTANTS) -> list[dict[str, Any]]:
    """Reports as a machine with these costs would write them."""
    growth: dict[str, float] = {"bytes_per_delivery_100": constants.delivery_bytes}
    for members in SIZES:
        growth[f"messages_per_read_{members}"] = JOINED[members]
        growth[f"cpu_us_{members}"] = per_delivery(constants, members, JOINED[members])
    chat = {
        "messages_per_s": 2000.0,
        "deliveries_per_s": 10_000.0,
        "cpu_us_per_message": constants.said_us + 5 * constants.write_us + constants.heard_us,
        "redis_us_per_message": redis_us(constants, "chat", 1, 2000),
        "redis_reads_per_message": READS["chat"],
        "redis_in_bytes_per_message": constants.append_bytes,
        "redis_bytes_per_message": constants.log_bytes,
    }
    idle = {
        "cpu_share": constants.idle_us * 15_000 / 1e6,
        "kib_per_connection": constants.connection_bytes / 1024,
        "rss_mib": (constants.node_bytes + 15_000 * constants.connection_bytes) / 2**20,
    }
    storm = {"redis_us_per_join": constants.redis_connect_us, "redis_bytes_per_user": constants.user_bytes}
    on_nodes = [
        sample(
            name,
            redis_us_per_message=9.0 + hearing * constants.sent_us + nodes * constants.redis_beat_us / 50,
            redis_out_bytes_per_message=40 + hearing * constants.sent_bytes,
            messages_per_read=1.0,
            cpu_us_per_delivery=constants.write_us + hearing * constants.heard_us / 1000 + constants.idle_us / 50,
        )
        for name, (nodes, hearing) in HEARERS.items()
    ]
    crossing = {
        "redis_us_per_message": redis_us(constants, "cross-node", 2, 500),
        "redis_reads_per_message": READS["cross-node"],
    }
    masters = [
        sample(name, us_per_publish=redis_us(constants, name, 2), reads_per_publish=READS[name])
        for name in ("1 master", "3 masters")
    ]
    found: Mapping[str, tuple[Mapping[str, object], list[dict[str, Any]]]] = {
        "growth": ({}, [sample(**growth)]),
        "chat": ({}, [sample(**chat), sample("baseline", cpu_us_per_message=1.0)]),
        "idle": ({"connections": 15_000}, [sample(**idle)]),
        "handshake": ({}, [sample(cpu_us_per_join=constants.connect_us)]),
        "presence-storm": ({}, [sample(**storm)]),
        "cluster": ({"subscribers": 1000, "messages/s": 50}, on_nodes),
        "cross-node": ({"messages/s": 500}, [sample(**crossing)]),
        "masters": ({"rooms": 300, "messages/s": 3000}, masters),
    }
    return [{"scenario": name, "parameters": p, "samples": samples} for name, (p, samples) in found.items()]


def test_planted_costs_come_back_and_every_one_names_its_source() -> None:
    constants = constants_of(Reports([Report(each) for each in planted()]))
    assert asdict(constants) == pytest.approx(asdict(CONSTANTS), rel=1e-6)
    assert SOURCES.keys() == asdict(constants).keys()


def test_runs_of_such_a_machine_are_foretold() -> None:
    reports = Reports([Report(each) for each in planted()])
    found = checks(reports, constants_of(reports))
    runs = ["1 node", "2 nodes", "4 nodes", "1 master, 300 rooms", "3 masters, 300 rooms"]
    assert [check.run for check in found] == runs
    assert [check.error for check in found] == pytest.approx([0] * 5, abs=1e-6)


def test_an_error_is_told_as_one() -> None:
    reports = Reports([Report(each) for each in planted()])
    found = checks(reports, replace(constants_of(reports), write_us=2 * CONSTANTS.write_us))
    assert found[0].error == pytest.approx(0.98, abs=0.02), "nearly all of it is writes"
    found = checks(reports, replace(constants_of(reports), read_us=2 * CONSTANTS.read_us))
    assert [check.error for check in found[:3]] == pytest.approx([0] * 3, abs=1e-6)
    assert found[4].error > found[3].error > 0, "the more is read for a message, the more wrong"


def test_what_was_sent_cannot_have_cost_more_than_all_of_it() -> None:
    found = planted()
    for each in found:
        if each["scenario"] == "chat":
            each["samples"][0]["redis_us_per_message"] = READS["chat"] * CONSTANTS.sent_us
    with pytest.raises(SetupError, match="run all three again"):
        constants_of(Reports([Report(each) for each in found]))


def test_a_fanout_more_is_one_measurement_more() -> None:
    more = {
        "scenario": "fanout",
        "parameters": {"subscribers": 100},
        "samples": [sample(messages_per_read=10.0, cpu_us_per_delivery=100.0)],
    }
    with_it = constants_of(Reports([Report(each) for each in [*planted(), more]]))
    assert with_it.joined_us > CONSTANTS.joined_us


def test_missing_reports_and_figures_are_named_with_their_command() -> None:
    with pytest.raises(SetupError, match=r"python -m loadtests idle --json idle\.json"):
        Reports([Report(each) for each in planted() if each["scenario"] != "idle"])
    old = planted()
    del old[3]["samples"][0]["cpu_us_per_join"]
    with pytest.raises(SetupError, match="the report of handshake has no cpu_us_per_join"):
        constants_of(Reports([Report(each) for each in old]))


def test_rooms_in_words() -> None:
    assert rooms_of("200000x5@0.2") == Rooms(200_000, 5, 0.2)


@pytest.mark.parametrize("words", ["", "5", "5x5", "5@1", "x5@1", "0x5@1", "5x0@1", "5x5@-1", "5x5@nan", "5x5@inf"])
def test_words_that_are_no_rooms_are_refused(words: str) -> None:
    with pytest.raises(SetupError, match=r"as in 200000x5@0\.2"):
        rooms_of(words)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    every = [sys.executable, "-m", "loadtests", "model", *words]
    return subprocess.run(every, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def test_the_command_tells_constants_errors_and_a_reading(tmp_path: Path) -> None:
    paths = []
    for report in planted():
        paths.append(tmp_path / f"{report['scenario']}.json")
        paths[-1].write_text(json.dumps(report))
    done = command(*map(str, paths), "--rooms", "200000x5@0.2", "--rooms", "1x1000000@1")
    assert done.returncode == 0, done.stderr
    assert "| `write_us` | 4 | µs | growth, fanout |" in done.stdout
    assert "| 4 nodes | node CPU µs per delivery | 4.14 | 4.14 | +0% |" in done.stdout
    # 200,000 deliveries/s of the chat and 1,000,000 of the stadium, of which one of each 0.6 core is 150,000
    assert "1,000,000 connections" in done.stdout and "| messages/s, deliveries/s | 40,001, 1,200,000 |" in done.stdout
    assert "Breaks first: " in done.stdout
    bad = tmp_path / "bad.json"
    bad.write_text("[]")
    refused = command(str(bad))
    assert (refused.returncode, "bad.json is no report of a scenario" in refused.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.system
@pytest.mark.timeout(300)
def test_reports_of_real_runs_have_all_it_needs(tmp_path: Path) -> None:
    sizes = {
        "growth": "--deliveries 2000 --seconds 1 --largest 1000",
        "chat": "--rooms 10 --rate 200 --seconds 1 --samples 1",
        "idle": "--connections 300 --hold 1",
        "handshake": "--seconds 1 --samples 1",
        "presence-storm": "--connections 200",
        "cluster": "--subscribers 40 --seconds 1 --samples 1",
        "cross-node": "--subscribers 20 --rate 100 --seconds 1 --samples 1",
        "masters": "--rooms 20 --rate 200 --seconds 1",
    }
    for name, words in sizes.items():
        run = [sys.executable, "-m", "loadtests", name, *words.split(), "--json", str(tmp_path / f"{name}.json")]
        done = subprocess.run(run, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    done = command(*(str(tmp_path / f"{name}.json") for name in sizes), "--rooms", "20x5@1", "--connections", "100")
    assert done.returncode == 0, done.stderr
    assert "Breaks first" in done.stdout
