"""Many links, one story."""

from __future__ import annotations

from broker.redis.health import Health
from broker.stats import BrokerStats
from tests.support.sinks import RecordingSink


def health(shards: int) -> tuple[Health, RecordingSink, BrokerStats]:
    stats, sink = BrokerStats(), RecordingSink()
    health = Health(shards, stats)
    health.sink = sink
    return health, sink, stats


def test_the_sink_hears_of_the_first_shard_that_goes_and_of_the_last_that_comes_back() -> None:
    told, sink, stats = health(4)
    told.restore([0, 1, 2, 3], "x")
    assert sink.events == [] and told.ready.is_set() and told.reason == ""
    told.interrupt([1], "one")
    told.interrupt([2], "two")
    told.interrupt([2], "two again")
    assert sink.events == [("interrupted", "one")] and stats.interruptions == 1 and stats.away == 0.5
    told.restore([2], "x")
    assert sink.names() == ["interrupted"] and not told.is_up(1) and told.is_up(2)
    told.restore([1], "x")
    assert sink.names() == ["interrupted", "restored"] and stats.away == 0


def test_ready_is_more_than_half_and_the_reason_is_that_of_what_is_away() -> None:
    told, _, _ = health(4)
    assert not told.ready.is_set() and told.reason == "not started"
    told.restore([0, 1], "x")
    assert not told.ready.is_set()
    told.restore([2], "x")
    assert told.ready.is_set()
    told.interrupt([0, 1], "gone")
    assert not told.ready.is_set() and told.reason == "gone"
    told.close()
    assert told.reason == "closed"


def test_a_master_that_serves_nothing_is_no_outage() -> None:
    told, sink, _ = health(2)
    told.restore([0, 1], "x")
    told.interrupt([], "an empty one went away")
    assert sink.events == [] and told.ready.is_set()


def test_the_probe_that_is_told_is_the_oldest_one() -> None:
    told, _, stats = health(2)
    told.probed("a", 9.5, 10.0)
    told.probed("b", 11.75, 12.0)
    assert (stats.probe_confirmed_at_s, stats.probe_rtt_s) == (10.0, 0.25)
    told.forget("a")
    told.probed("b", 13.0, 14.0)
    assert stats.probe_confirmed_at_s == 14.0
