"""The limit of large rooms."""

from __future__ import annotations

import pytest

from server.crowds import Crowds
from server.refusal import Refusal
from server.settings import Settings


def crowds(members: int) -> Crowds:
    settings = Settings(large_room_members=10, large_room_messages_per_s=5)
    return Crowds(settings, lambda room: members if room == "large" else 1)


def test_a_large_room_takes_so_many_messages_and_as_many_signals() -> None:
    node = crowds(11)
    for _ in range(5):
        node.message("large")
        node.signal("large")
    for over in (node.message, node.signal):
        with pytest.raises(Refusal) as caught:
            over("large")
        assert caught.value.code == "rate_limited" and "11 members" in caught.value.message


def test_a_room_that_is_not_large_takes_any_number() -> None:
    node = crowds(10)
    for _ in range(1000):
        node.message("large")
        node.message("small")
