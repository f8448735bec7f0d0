"""Growth is told from noise, from warming up and from one bad moment."""

from __future__ import annotations

import random

import pytest

from loadtests.leak import MIN_SAMPLES, Bound, grown

TENTH = Bound(share=0.10, amount=4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([100 + n for n in range(100)], True),
        ([100.0] * 100, False),
        ([50.0] * 15 + [100.0] * 85, False),  # it warmed up
        ([100.0] * 99 + [500.0], False),  # one moment
        ([100.0] * 60 + [120.0] * 40, True),  # a step that stays
        ([100.0] * 60 + [109.0] * 40, False),  # within the share
        ([10.0] * 60 + [13.0] * 40, False),  # within the amount
        ([200.0 - n for n in range(100)], False),
        ([float(n * 100) for n in range(MIN_SAMPLES - 1)], False),  # says nothing yet
    ],
)
def test_growth(values: list[float], expected: bool) -> None:
    assert grown(values, TENTH) is expected


def test_noise_is_no_growth_and_a_slow_leak_below_it_is() -> None:
    chance = random.Random(7)
    noise = [100 + chance.uniform(-8, 8) for _ in range(240)]
    assert not grown(noise, TENTH)
    assert grown([value + 0.12 * index for index, value in enumerate(noise)], TENTH)
