"""The pace of a drain, and in which order clients are told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from server.app import create_app
from server.drain import CLOSES_PER_S, STEP_S, drain, due, duration_s, leaving_order, spread_s
from server.serve import Server, uvicorn_config
from server.settings import Settings
from tests.support.connections import RecordingConnection
from tests.support.hubs import hubs


@given(st.integers(1, 20_000), st.floats(0.001, 600))
def test_everybody_is_sent_away_within_the_time_and_evenly(connections: int, drain_s: float) -> None:
    takes_s = duration_s(connections, drain_s)
    assert takes_s <= drain_s
    steps = [due(connections, takes_s, number * STEP_S) for number in range(int(takes_s / STEP_S) + 2)]
    assert steps[-1] == connections == due(connections, takes_s, takes_s)
    for number, done in enumerate(steps):
        assert abs(done - min(connections, connections * number * STEP_S / takes_s)) < 1.001


def test_few_connections_do_not_take_the_whole_time_and_many_do() -> None:
    assert duration_s(10, 20.0) == 10 / CLOSES_PER_S
    assert duration_s(5000, 20.0) == 20.0
    assert due(500, duration_s(500, 0.0), 0.0) == 500


@pytest.mark.parametrize(("takes_s", "within_s"), [(0.0, 0.0), (1.0, 0.1), (20.0, 2.0), (600.0, 2.0)])
def test_clients_are_asked_to_wait_for_a_tenth_of_the_time_at_most(takes_s: float, within_s: float) -> None:
    assert spread_s(takes_s) == pytest.approx(within_s)


def test_a_container_is_not_killed_before_its_node_ends_itself() -> None:
    node = create_app(Settings(dev=True))
    longest_s = Server(uvicorn_config(node), node).leaves_within_s
    assert longest_s == 20 + 19, "docs/operations.md says so"
    compose = yaml.safe_load((Path(__file__).parents[2] / "compose.yaml").read_text())
    assert float(compose["services"]["node"]["stop_grace_period"].removesuffix("s")) > longest_s


async def test_everybody_is_told_before_the_close_also_who_came_while_it_ran() -> None:
    async with hubs(1) as (hub,):
        told = [RecordingConnection(hub, f'"u{number}"') for number in range(20)]
        late: list[RecordingConnection] = []

        def everyone() -> list[RecordingConnection]:
            if not late:
                late.append(RecordingConnection(hub, '"late"'))
                return told
            return [*told, *late]

        await drain(everyone, 0.2)
        for each in [*told, *late]:
            [drained] = [event for event in each.events if event["op"] == "drain"]
            assert 0 <= drained["retry_after_ms"] <= 20
            assert each.code == 1012
            each.leave()


async def test_an_application_s_own_protocol_is_not_told_ours() -> None:
    async with hubs(1) as (hub,):
        raw = RecordingConnection(hub, path="/raw")
        raw.raw = True
        raw.events.clear()
        await drain(lambda: [raw], 0.0)
        assert (raw.events, raw.code) == ([], 1012)
        raw.leave()


async def test_who_owes_reading_goes_first() -> None:
    """So that the patience with dead peers runs out while the others are still being told."""

    class Slow(RecordingConnection):
        def outbound_bytes(self) -> int:
            return 1

    async with hubs(1) as (hub,):
        fine = [RecordingConnection(hub) for _ in range(20)]
        slow = [Slow(hub) for _ in range(5)]
        order = leaving_order([*fine, *slow])
        assert set(order[:5]) == set(slow) and set(order[5:]) == set(fine)
        assert any(leaving_order(fine) != fine for _ in range(5)), "always in the same order"
        for each in [*fine, *slow]:
            each.leave()
