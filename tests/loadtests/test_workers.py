"""The scenario that sets workers against nodes, in miniature."""

from __future__ import annotations

import pytest

from loadtests.workers import FIGURES, KINDS, Machine, measure


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.system
def test_both_deliver_all_and_every_connection_is_counted() -> None:
    with Machine() as stage:
        for kind in KINDS:
            figures = measure(stage, kind, count=2, subscribers=40, rate=50, seconds=1)
            assert FIGURES.keys() <= figures.keys()
            assert (figures["lost"], figures["duplicated"], figures["delivered_share"]) == (0, 0, 1)
            assert figures["spread"] < 1.9, "no node is without connections"
            assert kind == "workers" or figures["spread"] == 0
