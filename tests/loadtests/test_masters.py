"""Scenario ``masters``, small: the figures are right about a load that is known."""

from __future__ import annotations

import pytest
from rich.console import Console

from loadtests.errors import SetupError
from loadtests.masters import Masters, run


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.system
def test_nothing_is_lost_and_everything_is_spread(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(Masters(masters="1,3", rooms=60, rate=300, duration_s=2.0), Console())
    assert result.faults() == []
    assert [sample.server for sample in result.samples] == ["1 master", "3 masters"]
    one, three = (sample.figures for sample in result.samples)
    assert one["room_evenness"] == one["user_evenness"] == one["cpu_evenness"] == 1
    for figure in ("room_evenness", "user_evenness"):
        assert 1 <= three[figure] < 1.6
    for figures in (one, three):
        assert figures["lost"] == figures["reordered"] == 0 and figures["us_per_publish"] > 0
        assert 0 < figures["reads_per_publish"] <= 1.5, "a read has a call or several, and heartbeats are few"
        assert figures["deliveries_per_s"] == pytest.approx(2 * figures["acked_per_s"], rel=0.05)


@pytest.mark.parametrize("words", ["", "one", "1,,3", "0"])
def test_what_is_no_list_of_numbers_is_refused(words: str) -> None:
    with pytest.raises(SetupError, match="numbers of masters as in 1,3"):
        _ = Masters(masters=words).counts
