"""Places and turns, without sockets. What clients see of it: tests/node/test_caps.py, tests/fault/test_storm.py."""

from __future__ import annotations

import asyncio
import gc
import resource
from typing import Any

import pytest

from server import accepting
from server.accepting import AT_ONCE, PER_TURN, Accepting, address_of, default_max_connections
from server.auth import TooManyConnections
from server.connection import Connection
from server.denial import Denied
from server.settings import Settings


def door(*, connected: int = 0, of_user: int = 0, leaving: bool = False, **settings: Any) -> Accepting:
    return Accepting(Settings.model_validate(settings), lambda: connected, lambda user: of_user, lambda: leaving)


def scope(address: str = "192.0.2.1") -> dict[str, Any]:
    return {"client": (address, 1234)}


def test_the_default_cap_leaves_files_for_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {1024: 768, 20_000: 19_744, 100: 1, 2**20: 100_000, -1: 100_000}
    for files, connections in limits.items():
        monkeypatch.setattr(resource, "getrlimit", lambda which, files=files: (files, files))
        assert default_max_connections() == connections
        assert door().max_connections == connections


def test_over_the_node_s_cap_there_is_no_place_until_somebody_leaves() -> None:
    node = door(connected=2, max_connections=4)
    places = [node.place(scope()), node.place(scope())]
    with pytest.raises(Denied) as caught:
        node.place(scope())
    assert (caught.value.status, caught.value.reason) == (503, "full") and caught.value.headers[
        "retry-after"
    ] in "12345"
    places[0].left()
    places[0].left()
    node.place(scope())
    with pytest.raises(Denied):
        node.place(scope())


def test_a_node_that_leaves_has_no_place() -> None:
    with pytest.raises(Denied) as caught:
        door(leaving=True).place(scope())
    assert (caught.value.status, caught.value.reason) == (503, "draining")


def test_an_address_has_its_cap_as_long_as_its_connections_are_there() -> None:
    node = door(max_connections_per_address=2)
    first, second = node.place(scope()), node.place(scope())
    with pytest.raises(Denied) as caught:
        node.place(scope())
    assert (caught.value.status, caught.value.reason) == (429, "address")
    node.place(scope("192.0.2.2"))
    connection = Connection()
    first.entered(connection)
    first.left()
    with pytest.raises(Denied):
        node.place(scope())
    node.lost(connection)
    node.lost(connection)
    third = node.place(scope())
    for place in (second, third):
        place.left()
    assert node._addresses == {"192.0.2.2": 1}


def test_a_trusted_proxy_that_speaks_for_nobody_is_not_counted() -> None:
    node = door(max_connections_per_address=1, trusted_proxies="10.0.0.0/8,::1")
    for address in ("10.1.2.3", "::1"):
        assert [node.place(scope(address)).address for _ in range(3)] == [None] * 3
    node.place(scope("192.0.2.1"))
    with pytest.raises(Denied):
        node.place(scope("192.0.2.1"))


def test_addresses() -> None:
    assert address_of(scope("192.0.2.1")) == "192.0.2.1"
    assert address_of(scope("::ffff:192.0.2.1")) == "192.0.2.1"
    assert address_of(scope("2001:db8:1:2:3::4")) == address_of(scope("2001:db8:1:2::5")) == "2001:db8:1:2::/64"
    assert address_of(scope("2001:db8:1:3::4")) != address_of(scope("2001:db8:1:2::5"))
    assert [address_of({"client": None}), address_of({}), address_of(scope("unknown"))] == [None] * 3


def test_a_user_s_cap_counts_those_who_are_on_their_way() -> None:
    node = door(of_user=1, max_connections_per_user=3)
    places = [node.place(scope()) for _ in range(3)]
    for place in places[:2]:
        place.claim('"alice"')
    with pytest.raises(TooManyConnections) as caught:
        places[2].claim('"alice"')
    assert (caught.value.code, caught.value.reason) == (4010, "user") and 20 <= caught.value.retry_after_s <= 40
    places[0].left()
    node.place(scope()).claim('"alice"')


def test_who_connects_over_and_over_is_told_to_back_off() -> None:
    node = door(max_connections_per_user=5, connects_per_min=1)
    for _ in range(5):
        place = node.place(scope())
        place.claim("42")
        place.left()
    with pytest.raises(TooManyConnections) as caught:
        node.place(scope()).claim("42")
    assert caught.value.reason == "too_often" and 55 <= caught.value.retry_after_s <= 66
    node.place(scope()).claim("43")


# Turns.


async def turns(node: Accepting, count: int) -> tuple[list[int], list[accepting.Place]]:
    """Let so many come at once: how many began in each turn of the loop."""
    begun: list[int] = []
    places = [node.place(scope()) for _ in range(count)]
    order: list[int] = []

    async def come(number: int) -> None:
        await places[number].turn()
        order.append(number)

    tasks = [asyncio.create_task(come(number)) for number in range(count)]
    while not all(task.done() for task in tasks):
        before = len(order)
        await asyncio.sleep(0)
        begun.append(len(order) - before)
    assert order == sorted(order), "in the order of arrival"
    return begun, places


async def test_of_a_storm_few_begin_in_each_turn_of_the_loop() -> None:
    begun, _ = await turns(door(), 500)
    assert max(begun) <= PER_TURN and sum(begun) == 500
    assert len(begun) <= 2 * 500 / PER_TURN + 3, "and no turn is wasted"


async def test_a_single_handshake_begins_at_once() -> None:
    node = door()
    place = node.place(scope())
    with pytest.raises(StopIteration):
        place.turn().send(None)  # it ends without ever waiting
    place.left()


async def test_so_many_are_under_way_at_once_and_one_that_ends_lets_the_next_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accepting, "PATIENCE_S", 60.0)
    node = door()
    _, places = await turns(node, AT_ONCE)
    late = [node.place(scope()) for _ in range(3)]
    waiting = [asyncio.create_task(place.turn()) for place in late]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting) and len(node._waiting) == 3
    places[0].left()
    await asyncio.wait_for(waiting[0], 30)
    assert not waiting[1].done()
    places[1].entered(Connection())
    await asyncio.wait_for(waiting[1], 30)
    waiting[2].cancel()
    await asyncio.wait(waiting)
    late[2].left()
    places[2].left()
    await asyncio.wait_for(node.place(scope()).turn(), 30)


async def test_handshakes_that_hang_do_not_shut_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "PATIENCE_S", 0.05)
    node = door()
    await turns(node, AT_ONCE)
    await asyncio.wait_for(node.place(scope()).turn(), 30)


async def test_nothing_is_kept_of_those_who_are_done() -> None:
    node = door(max_connections_per_address=10_000)
    for _ in range(3):
        _, places = await turns(node, 200)
        for number, place in enumerate(places):
            place.claim(str(number % 50))
            connection = Connection()
            if number % 2:
                place.entered(connection)
            place.left()
            node.lost(connection)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del places, place, connection
    gc.collect()
    kept = (node._entering, node._entering_of, node._addresses, node._homes, node._waiting, node._begun)
    assert not any(kept), kept
    assert node._page is None and node._patience is None
