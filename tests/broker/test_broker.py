"""A URL chooses the broker."""

from __future__ import annotations

import subprocess
import sys

import pytest

from broker import BrokerOptions, broker_from_url
from broker.memory import MemoryBroker
from broker.redis.broker import RedisBroker


def test_memory_without_name_is_a_bus_of_its_own_and_with_a_name_a_shared_one() -> None:
    one, other = (broker_from_url("memory://", node_id=name) for name in "ab")
    assert isinstance(one, MemoryBroker) and isinstance(other, MemoryBroker) and one.bus is not other.bus
    one, other = (broker_from_url("memory://shared", node_id=name) for name in "ab")
    assert isinstance(one, MemoryBroker) and isinstance(other, MemoryBroker) and one.bus is other.bus
    third = broker_from_url("memory://else", node_id="c")
    assert isinstance(third, MemoryBroker) and third.bus is not one.bus


@pytest.mark.parametrize("url", ["redis://localhost/1", "rediss://localhost", "unix:///run/redis.sock"])
def test_redis_in_its_three_forms(url: str) -> None:
    options = BrokerOptions(prefix="p")
    broker = broker_from_url(url, node_id="a", options=options)
    assert isinstance(broker, RedisBroker) and broker.node_id == "a" and broker.options is options


@pytest.mark.parametrize("url", ["http://x", "redis+proxy://x", "redis", "", "localhost:6379"])
def test_another_url_is_an_error_that_names_the_right_ones(url: str) -> None:
    with pytest.raises(ValueError, match=r"use memory://, redis://host:6379/0"):
        broker_from_url(url, node_id="a")


def test_the_embedded_broker_does_not_import_redis() -> None:
    code = "import sys, broker; broker.broker_from_url('memory://', node_id='a'); print('redis' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
