"""``python -m loadtests peers``: the ones whose packages are here in miniature, all of them in the slow tier."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests.errors import SetupError
from loadtests.peer import NAMES
from loadtests.peer_packages import words_of
from loadtests.stage import IN_FLIGHT, Stage

pytestmark = [pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(180)]
CHECKOUT = Path(__file__).parents[2]
STANDIN = Path(__file__).with_name("standin_centrifugo.py")
SMALL = ("--few", "5", "--many", "10", "--highest-rate", "64", "--seconds", "0.5", "--samples", "1")


def peers(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtests", "peers", *SMALL, *words]
    environment = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)


def measured(done: subprocess.CompletedProcess[str], report: Path) -> dict[str, Any]:
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    assert found["faults"] == []
    assert found["not_measured"] == {}
    return found


@pytest.fixture
def centrifugo(tmp_path: Path) -> Path:
    """A program in its place."""
    path = tmp_path / "centrifugo"
    path.write_text(f'#!/bin/sh\n[ "$1" = version ] && echo stand-in && exit\nexec {sys.executable} {STANDIN} "$@"\n')
    path.chmod(0o755)
    return path


def test_the_plain_loop_is_measured_beside_a_node_and_the_c_loop(tmp_path: Path) -> None:
    report = tmp_path / "peers.json"
    done = peers("--peer", "starlette", "--markdown", "--json", str(report))
    found = measured(done, report)
    assert [sample["server"] for sample in found["samples"]] == ["baseline", "node", "starlette"]
    for sample in found["samples"]:
        assert (sample["lost"], sample["duplicated"]) == (0, 0)
        assert sample["peak_per_s"] > 0
    assert found["medians"]["starlette"]["bytes_per_delivery"] == 102, "100 of data, 2 of the frame"
    assert "| plain Starlette loop | 1." in done.stdout
    assert "| **Roomcast node** | " in done.stdout


def test_a_second_server_and_a_bridge_publish_for_those_that_need_them(tmp_path: Path, centrifugo: Path) -> None:
    report = tmp_path / "peers.json"
    done = peers("--peer", "centrifugo", "--centrifugo", str(centrifugo), "--json", str(report))
    found = measured(done, report)
    assert found["versions"] == {"centrifugo": "stand-in"}
    assert found["medians"]["centrifugo"]["peak_per_s"] > 0


def test_one_that_loses_messages_without_being_overloaded_exits_1(centrifugo: Path) -> None:
    done = peers("--peer", "centrifugo", "--centrifugo", str(centrifugo), STANDIN_FAULT="lose")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "fault: sample 3 (centrifugo): " in done.stdout
    assert " lost" in done.stdout


def test_one_that_breaks_down_is_not_measured_with_its_own_words(tmp_path: Path) -> None:
    broken = tmp_path / "centrifugo"
    broken.write_text("#!/bin/sh\necho no licence for tea >&2\nexit 3\n")
    broken.chmod(0o755)
    done = peers("--peer", "centrifugo", "--peer", "starlette", "--centrifugo", str(broken), "--markdown")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "| not measured: the centrifugo ended with 3; its last lines: no licence for tea |" in done.stdout
    assert "| plain Starlette loop | 1." in done.stdout, "the others are measured all the same"


def test_a_name_that_is_none_is_told_the_names() -> None:
    done = peers("--peer", "phoenix")
    assert done.returncode == 2
    assert "no peer phoenix" in done.stderr


def test_what_is_missing_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match="--centrifugo PATH"):
        words_of("centrifugo", None)
    with pytest.raises(SetupError, match="no program that can be run"):
        words_of("centrifugo", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="apt-get install nodejs npm"):
        words_of("npm", None)


def test_who_joins_later_expects_only_what_comes_later() -> None:
    with Stage() as stage, stage.server("baseline") as server, stage.publisher("publish") as publisher:
        with stage.client(server) as client:
            client.ask(f"open 2 {IN_FLIGHT}", timeout_s=30)
            client.ask(f"reach {publisher.ask('publish 5 1000 0', timeout_s=30)['last']}", timeout_s=30)
            client.ask(f"open 3 {IN_FLIGHT}", timeout_s=30)
            last = publisher.ask("publish 5 1000 0", timeout_s=30)["last"]
            client.ask(f"reach {last}", timeout_s=30)
            seen = client.ask(f"report {last}", timeout_s=30)
    assert (seen["connections"], seen["deliveries"], seen["lost"], seen["early"]) == (5, 2 * 10 + 3 * 5, 0, 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("starlette", "centrifugo")])
def test_every_peer_delivers_all_it_is_offered(name: str, tmp_path: Path) -> None:
    report = tmp_path / "peers.json"
    found = measured(peers("--peer", name, "--json", str(report)), report)
    assert found["medians"][name]["bytes_per_delivery"] > 100
    assert found["versions"][name] != "?"


@pytest.mark.slow
def test_a_registry_that_cannot_be_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(SetupError, match="is the registry reachable"):
        words_of("python", None)
    assert not list((tmp_path / "roomcast-loadtests").glob("*/complete"))
