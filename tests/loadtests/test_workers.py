"""The scenario that sets workers against nodes, in miniature."""

from __future__ import annotations

import pytest
from rich.console import Console

from loadtests.workers import COLUMNS, Workers, run


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.system
def test_both_deliver_all_and_every_connection_is_counted() -> None:
    result = run(Workers(count=2, subscribers=40, rate=50, duration_s=1, samples=1), Console())
    assert result.servers == ["workers", "nodes"] and result.faults() == []
    for sample in result.samples:
        figures = sample.figures
        assert {column.figure for column in COLUMNS} <= figures.keys()
        assert (figures["lost"], figures["duplicated"], figures["delivered_share"]) == (0, 0, 1)
        assert figures["spread"] < 1.9, "no node is without connections"
        assert sample.server == "workers" or figures["spread"] == 0
