"""Miniature runs of the whole thing: Redis, publisher, load client, baseline, and a stand-in for the node."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from websockets.sync.client import connect

from broker.base import Entry
from broker.envelope import decode
from broker.redis.keys import Keys
from loadtests.stage import CHANNEL, EPOCH, LOG, META, ONLINE, ROOM, Stage, Through
from server.payload import decode_message

pytestmark = [pytest.mark.redis, pytest.mark.system]
STANDIN = Path(__file__).with_name("standin_node.py")
CHECKOUT = Path(__file__).parents[2]


def loadtests(*arguments: str, fault: str = "ok") -> subprocess.CompletedProcess[str]:
    node = shlex.join([sys.executable, str(STANDIN), "{port}", "{redis_port}", "{channel}", fault])
    return subprocess.run(
        [sys.executable, "-m", "loadtests", *arguments, "--node", node],
        cwd=CHECKOUT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "PYTHONPATH": str(CHECKOUT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


SMALL = ("fanout", "--subscribers", "5", "--rate", "100", "--seconds", "0.5", "--warmup", "0.1", "--samples", "1")


@pytest.mark.parametrize("through", ["publish", "append"])
def test_a_fanout_that_loses_nothing_exits_0_and_writes_its_figures(through: str, tmp_path: Path) -> None:
    report = tmp_path / "fanout.json"
    done = loadtests(*SMALL, "--through", through, "--json", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert [s["server"] for s in found["samples"]] == ["node", "baseline"]
    assert [s["deliveries"] for s in found["samples"]] == [250, 250]
    assert found["faults"] == []
    assert found["parameters"]["presence"] == "rooms"
    assert found["ratios"]["delivered_share"] == 1


def test_a_real_node_sends_every_member_the_same_bytes_as_the_baseline(tmp_path: Path) -> None:
    report = tmp_path / "fanout.json"
    command = [sys.executable, "-m", "loadtests", *SMALL, "--json", str(report)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    node, baseline = json.loads(report.read_text())["samples"]
    assert node["deliveries"] == baseline["deliveries"] == 250
    assert node["bytes"] == baseline["bytes"]


PINGS = ("small", "--connections", "5", "--rate", "100", "--seconds", "0.5", "--samples", "1")
SIZES = ("growth", "--largest", "100", "--deliveries", "1000", "--seconds", "0.2")


@pytest.mark.parametrize(
    ("words", "fault", "told"),
    [
        (SMALL, "lose", "5 lost"),
        (SMALL, "double", "5 duplicated"),
        (PINGS, "lose", "5 lost"),
        (PINGS, "double", "5 duplicated"),
        (SIZES, "lose", "110 lost"),
        (SIZES, "double", "110 duplicated"),
    ],
)
def test_a_single_message_lost_or_doubled_exits_1(words: tuple[str, ...], fault: str, told: str) -> None:
    done = loadtests(*words, fault=fault)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"fault: sample 1 (node): {told}" in done.stdout


def test_idle_connections_are_held_and_weighed(tmp_path: Path) -> None:
    report = tmp_path / "idle.json"
    done = loadtests("idle", "--connections", "50", "--hold", "0.2", "--json", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    medians = json.loads(report.read_text())["medians"]
    # a connection of the websockets library weighs tens of KiB, one of the baseline a few hundred bytes
    assert medians["node"]["kib_per_connection"] > 10 > medians["baseline"]["kib_per_connection"]


def test_handshakes_are_counted_bare_and_with_a_join(tmp_path: Path) -> None:
    report = tmp_path / "handshake.json"
    done = loadtests("handshake", "--seconds", "0.3", "--in-flight", "8", "--samples", "1", "--json", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    for figures in json.loads(report.read_text())["medians"].values():
        assert figures["handshakes_per_s"] > 0
        assert figures["joins_per_s"] > 0
        assert figures["failed"] == 0


def test_a_node_that_cannot_start_exits_2_with_its_own_words() -> None:
    command = shlex.join([sys.executable, "-c", "raise SystemExit('port 0 is reserved for tea')"])
    done = subprocess.run(
        [sys.executable, "-m", "loadtests", *SMALL, "--node", command],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "reserved for tea" in done.stderr) == (2, True), done.stdout + done.stderr


def test_the_names_in_redis_are_the_brokers() -> None:
    keys = Keys()
    assert (CHANNEL, META, LOG) == (keys.channel(f"room:{ROOM}"), keys.meta(ROOM), keys.log(ROOM))
    assert keys.presence(0, "all") == ONLINE


@pytest.mark.parametrize("through", ["publish", "append"])
def test_published_entries_are_linked_like_those_of_a_log_and_framed_like_a_nodes(through: Through) -> None:
    with Stage() as stage, stage.server("baseline") as server, stage.publisher(through) as publisher:
        with (
            redis.Redis(port=stage.redis_port, protocol=2) as client,
            client.pubsub(ignore_subscribe_messages=True) as subscription,
            connect(f"ws://127.0.0.1:{server.port}/ws", compression=None) as member,
        ):
            subscription.subscribe(CHANNEL)
            subscription.get_message(timeout=5)
            assert json.loads(member.recv(5))["op"] == "welcome"
            member.send('{"op":"join","room":"bench","id":7}')
            assert json.loads(member.recv(5))["id"] == 7
            assert publisher.ask("publish 300 100000 500", timeout_s=10)["last"] == 300
            envelopes = [subscription.get_message(timeout=5) for _ in range(300)]
            texts = [member.recv(5) for _ in range(300)]
    tag = b"0"
    for offset, (envelope, text) in enumerate(zip(envelopes, texts, strict=True), 1):
        assert envelope is not None
        entry = decode(envelope["data"])
        assert isinstance(entry, Entry)
        assert (entry.epoch, entry.offset, entry.prev) == (EPOCH.encode(), offset, tag)
        excluded, tail = decode_message(entry.payload)
        assert (excluded, len(tail)) == (b"", len('"user_id":1,"ts":1732147200.123,"data":}') + 100)
        assert json.loads(b"{" + tail)["data"]["seq"] == f"{offset:012d}"
        tag = entry.tag
        head = f'{{"op":"broadcast","type":"message","room":"bench","offset":{offset},"tag":"{tag.decode()}",'
        assert text == head + tail.decode()


@pytest.mark.parametrize(
    "words",
    [["chat", "--rooms", "4", "--rate", "100"], ["many-rooms", "--connections", "20", "--rate", "50"]],
    ids=["chat", "many-rooms"],
)
def test_who_talks_is_heard_by_all_in_the_room_and_acknowledged(words: list[str], tmp_path: Path) -> None:
    found = measured(*words, "--seconds", "1", "--samples", "1", folder=tmp_path)
    for figures in found["medians"].values():
        assert figures["delivered_share"] == 1
        assert figures["lost"] == figures["duplicated"] == 0
        assert figures["messages_per_s"] > 20


def test_a_storm_brings_everybody_back_with_all_they_missed(tmp_path: Path) -> None:
    found = measured("reconnect-storm", "--members", "150", "--missed", "7", folder=tmp_path)
    node, baseline = found["samples"]
    assert (node["failed"], node["lost"], node["resets"], node["duplicated"]) == (0, 0, 0, 0)
    assert baseline["failed"] == 0


def test_users_who_come_online_are_counted_in_redis(tmp_path: Path) -> None:
    node, _ = measured("presence-storm", "--connections", "100", folder=tmp_path)["samples"]
    assert (node["online"], node["lost"], node["closed"]) == (200, 0, 0)


def test_a_node_without_a_member_hears_nothing(tmp_path: Path) -> None:
    words = ["cluster", "--subscribers", "20", "--rate", "20", "--seconds", "1", "--samples", "1"]
    medians = measured(*words, folder=tmp_path)["medians"]
    assert list(medians) == ["1 node", "2 nodes", "4 nodes", "4, members on 1", "C loop"]
    for name, figures in medians.items():
        assert (figures["delivered_share"], figures["lost"], figures["duplicated"]) == (1, 0, 0)
        if name != "C loop":
            assert figures["heard_here"] >= 40, "the warm-up and the run"
            assert figures["heard_elsewhere"] == 0


def test_small_messages_are_all_answered(tmp_path: Path) -> None:
    words = ["small", "--connections", "20", "--rate", "500", "--seconds", "1", "--samples", "1"]
    for sample in measured(*words, folder=tmp_path)["samples"]:
        assert (sample["answered"], sample["lost"], sample["duplicated"], sample["reordered"]) == (500, 0, 0, 0)


def test_what_one_node_says_another_tells(tmp_path: Path) -> None:
    words = ["cross-node", "--subscribers", "5", "--rate", "100", "--seconds", "1", "--samples", "1"]
    for sample in measured(*words, folder=tmp_path)["samples"]:
        assert (sample["deliveries"], sample["lost"], sample["duplicated"]) == (500, 0, 0)


def test_without_a_rate_both_kinds_are_measured_where_the_nodes_are_half_busy(tmp_path: Path) -> None:
    found = measured("cross-node", "--subscribers", "20", "--seconds", "1", "--samples", "1", folder=tmp_path)
    rate = found["parameters"]["messages/s"]
    assert [sample["deliveries"] for sample in found["samples"]] == [20 * rate, 20 * rate]
    assert [goal["goal"] for goal in found["goals"]] == [], "it is stated for 100 members"


def test_growth_measures_every_size(tmp_path: Path) -> None:
    words = ["growth", "--largest", "100", "--deliveries", "2000", "--seconds", "1"]
    for sample in measured(*words, folder=tmp_path)["samples"]:
        assert sample["deliveries_10"] == sample["deliveries_100"] == 2000
        assert sample["cpu_us_10"] > 0 and "growth" not in sample


def measured(*words: str, folder: Path) -> dict[str, Any]:
    """The report of a run against a real node, which is on its page, too."""
    report, drawn = folder / "report.json", folder / "report.html"
    command = [sys.executable, "-m", "loadtests", *words, "--json", str(report), "--report", str(drawn)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    assert found["faults"] == []
    assert drawn.read_text().count("<svg") >= 4, "rates, latencies, CPU and memory"
    return found
