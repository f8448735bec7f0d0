"""What Prometheus reads."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import shutil
import subprocess
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker.stats import BrokerStats, ServerHealth
from server.metrics import BROKER_COUNTERS, LATENCY_BUCKETS_S, SERVER_GAUGES, Counts, Metrics, Timing
from tests.support.waiting import eventually


def samples(metrics: Metrics) -> dict[str, float]:
    """``name{label="value"}`` -> value."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_counts_are_read_when_scraped() -> None:
    metrics = Metrics()
    counts = metrics.counts
    counts.connections, counts.connections_plain, counts.connections_total = 5, 2, 9
    counts.rooms, counts.joins, counts.errors, counts.foreign = 3, 4, 6, 7
    counts.messages_in, counts.bytes_in = 10, 100
    counts.messages_out, counts.deliveries, counts.bytes_out = 20, 200, 2000
    counts.dropped("slow", 3)
    counts.dropped("slow")
    counts.dropped("slow", 2, "typing")
    counts.slow_closes["stall"] = 8
    counts.closed(1000)
    counts.refused["full"] = 11
    seen = samples(metrics)
    assert (seen['roomcast_refused_total{reason="full"}'], seen['roomcast_refused_total{reason="user"}']) == (11, 0)
    assert seen['roomcast_connections{lane="fast"}'] == 3
    assert seen['roomcast_connections{lane="plain"}'] == 2
    assert seen["roomcast_connections_opened_total"] == 9
    assert (seen["roomcast_rooms"], seen["roomcast_joins_total"]) == (3, 4)
    assert (seen["roomcast_messages_received_total"], seen["roomcast_received_bytes_total"]) == (10, 100)
    assert (seen["roomcast_messages_sent_total"], seen["roomcast_deliveries_total"]) == (20, 200)
    assert (seen["roomcast_sent_bytes_total"], seen["roomcast_request_errors_total"]) == (2000, 6)
    assert seen["roomcast_foreign_signals_total"] == 7
    assert seen['roomcast_drops_total{kind="message",reason="slow"}'] == 4
    assert seen['roomcast_drops_total{kind="typing",reason="slow"}'] == 2
    assert (seen['roomcast_slow_closes_total{why="stall"}'], seen['roomcast_slow_closes_total{why="limit"}']) == (8, 0)
    assert seen['roomcast_closes_total{code="1000"}'] == 1
    counts.closed(1000)
    assert samples(metrics)['roomcast_closes_total{code="1000"}'] == 2


def test_every_count_is_exported() -> None:
    metrics = Metrics()
    before = samples(metrics)
    for number, name in enumerate(sorted(set(Counts.__slots__) - {"closes", "drops", "refused", "slow_closes"})):
        setattr(metrics.counts, name, 1000 + number)
        after = samples(metrics)
        changed = {key for key in after if after[key] != before.get(key) and key.startswith("roomcast_")}
        assert changed, f"{name} appears nowhere"
        before = after


def test_a_peer_cannot_make_labels_by_inventing_close_codes() -> None:
    metrics = Metrics()
    for code in (1000, 4008, *range(3000, 4000), *range(4100, 5000), *range(1016, 1100)):
        metrics.counts.closed(code)
    seen = {key for key in samples(metrics) if key.startswith("roomcast_closes_total")}
    assert seen == {f'roomcast_closes_total{{code="{code}"}}' for code in ("1000", "4008", "other")}


def test_a_timing_is_a_cumulative_histogram() -> None:
    metrics = Metrics()
    for seconds in (0.00005, 0.001, 0.0011, 99.0):
        metrics.fanout_seconds.observe(seconds)
    seen = samples(metrics)
    bucket = {key: value for key, value in seen.items() if key.startswith("roomcast_fanout_seconds_bucket")}
    assert bucket['roomcast_fanout_seconds_bucket{le="0.0001"}'] == 1
    assert bucket['roomcast_fanout_seconds_bucket{le="0.001"}'] == 2  # an upper bound is inclusive
    assert bucket['roomcast_fanout_seconds_bucket{le="0.0025"}'] == 3
    assert bucket['roomcast_fanout_seconds_bucket{le="+Inf"}'] == seen["roomcast_fanout_seconds_count"] == 4
    assert seen["roomcast_fanout_seconds_sum"] == pytest.approx(99.00215)
    assert len(bucket) == len(LATENCY_BUCKETS_S) + 1


def test_gauges_are_read_when_scraped() -> None:
    metrics = Metrics()
    pending = [17]
    metrics.watch("roomcast_outbound_pending_bytes", "Bytes clients have not taken yet.", lambda: sum(pending))
    assert samples(metrics)["roomcast_outbound_pending_bytes"] == 17
    pending.append(3)
    assert samples(metrics)["roomcast_outbound_pending_bytes"] == 20


def test_the_brokers_numbers_are_exported_and_its_publishes_timed() -> None:
    metrics = Metrics()
    stats = BrokerStats(commands=5, reconnects=2, probe_rtt_s=0.003)
    ready = False
    metrics.watch_broker(stats, lambda: ready)
    stats.observe_publish(0.004)
    seen = samples(metrics)
    assert (seen["roomcast_broker_commands_total"], seen["roomcast_broker_reconnects_total"]) == (5, 2)
    assert (seen["roomcast_broker_ready"], seen["roomcast_subscriber_lag_seconds"]) == (0, 0.003)
    assert seen['roomcast_publish_seconds_bucket{le="0.005"}'] == seen["roomcast_publish_seconds_count"] == 1
    assert "roomcast_broker_probe_age_seconds" not in seen  # no probe came back yet
    assert seen["roomcast_broker_away_ratio"] == 0
    ready = True
    stats.away = 0.25
    stats.probe_confirmed_at_s = time.monotonic() - 3
    seen = samples(metrics)
    assert seen["roomcast_broker_away_ratio"] == 0.25
    assert seen["roomcast_broker_ready"] == 1 and 3 <= seen["roomcast_broker_probe_age_seconds"] < 10


def test_each_redis_is_told_with_its_address_and_forgotten_with_it() -> None:
    metrics = Metrics()
    stats = BrokerStats()
    metrics.watch_broker(stats, lambda: True)
    assert not [key for key in samples(metrics) if key.startswith("roomcast_redis_")]
    stats.servers["redis:6379"] = ServerHealth(800, 1000, 7, 12.5, False)
    told = {key: value for key, value in samples(metrics).items() if key.startswith("roomcast_redis_")}
    assert told == {
        'roomcast_redis_used_memory_bytes{server="redis:6379"}': 800,
        'roomcast_redis_maxmemory_bytes{server="redis:6379"}': 1000,
        'roomcast_redis_clients{server="redis:6379"}': 7,
        'roomcast_redis_commands_per_second{server="redis:6379"}': 12.5,
        'roomcast_redis_persistence_ok{server="redis:6379"}': 0,
    }
    assert SERVER_GAUGES.keys() == {field.name for field in dataclasses.fields(ServerHealth)}
    del stats.servers["redis:6379"]
    assert not [key for key in samples(metrics) if key.startswith("roomcast_redis_")]


def test_every_counter_of_the_broker_has_a_name() -> None:
    counters = {field.name for field in dataclasses.fields(BrokerStats) if field.type in (int, "int")}
    assert counters == BROKER_COUNTERS.keys()


def test_nodes_in_one_process_do_not_share_numbers() -> None:
    one, other = Metrics(), Metrics()
    one.counts.joins = 1
    assert samples(other)["roomcast_joins_total"] == 0


async def test_a_blocked_event_loop_shows_as_lag() -> None:
    metrics = Metrics()
    sampler = asyncio.create_task(metrics.sample_loop_lag(every_s=0.01))
    await asyncio.sleep(0)  # the sampler begins to wait
    time.sleep(0.12)  # noqa: ASYNC251  # the block is the subject
    async with asyncio.timeout(30):
        await eventually(lambda: samples(metrics)["roomcast_loop_lag_seconds_count"])
    sampler.cancel()
    seen = samples(metrics)
    assert seen['roomcast_loop_lag_seconds_bucket{le="0.1"}'] < seen["roomcast_loop_lag_seconds_count"]


def test_names_and_labels_follow_the_rules() -> None:
    metrics = Metrics()
    metrics.watch_broker(BrokerStats(probe_confirmed_at_s=1), lambda: True)
    metrics.counts.dropped("slow")
    metrics.counts.slow_closes["limit"] += 1
    metrics.counts.closed(1000)
    for family in text_string_to_metric_families(metrics.render().decode()):
        assert re.fullmatch(r"(roomcast|process)_[a-z_]+", family.name)
        assert family.documentation
        for sample in family.samples:
            assert set(sample.labels) <= {"lane", "code", "reason", "kind", "why", "le", "version", "python", "server"}
    assert any(key.startswith("roomcast_build_info{") for key in samples(metrics))


@pytest.mark.system
def test_promtool_has_no_complaints() -> None:
    assert shutil.which("promtool"), "promtool is part of Debian's package prometheus: run scripts/setup"
    metrics = Metrics()
    metrics.watch_broker(BrokerStats(probe_confirmed_at_s=1), lambda: True)
    metrics.counts.dropped("slow")
    metrics.counts.closed(1000)
    text = b"".join(line for line in metrics.render().splitlines(keepends=True) if b"process_" not in line)
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=20)
    assert (result.returncode, result.stdout + result.stderr) == (0, b"")


def test_an_observation_is_cheap() -> None:
    """The reason for a Timing of our own: at most half of what the library's Histogram takes, in this run."""
    from prometheus_client import CollectorRegistry, Histogram

    def cost(observe: object) -> float:
        assert callable(observe)
        best = float("inf")
        for _ in range(5):
            started = time.thread_time()
            for _ in range(2000):
                observe(0.002)
            best = min(best, time.thread_time() - started)
        return best

    theirs = Histogram("h", "h", buckets=LATENCY_BUCKETS_S, registry=CollectorRegistry())
    assert cost(Timing().observe) < 0.5 * cost(theirs.observe)
