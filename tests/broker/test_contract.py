"""The promises of broker/base.py, word for word, on every broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop

from broker.base import MAX_OFFSET, Dedup, Entry, History, Mark, Position, Signal, Unavailable
from broker.redis.acl import acl_rules
from tests.support.brokers import Backend, Servers, running
from tests.support.waiting import eventually

HISTORY = History()
redis = pytest.mark.redis


@pytest.fixture(
    params=[
        "memory",
        pytest.param("redis", marks=redis),
        pytest.param("redis as the least privileged user", marks=redis),
        pytest.param("redis under uvloop", marks=redis),
        pytest.param("sentinel as the least privileged user", marks=redis),
        pytest.param("cluster as the least privileged user", marks=redis),
        pytest.param("cluster under uvloop", marks=redis),
    ]
)
def backend(request: pytest.FixtureRequest, prefix: str) -> Iterator[Backend]:
    kind, _, how = request.param.partition(" ")
    if kind == "memory":
        yield Backend(None, prefix)
        return
    fixture = {"redis": "redis_server", "sentinel": "redis_sentinels", "cluster": "redis_cluster"}[kind]
    server: Servers = request.getfixturevalue(fixture)
    if how != "as the least privileged user":
        yield Backend(server, prefix)
        return
    backend = Backend(server, prefix, f"{prefix}:secret@")
    backend.command("ACL", "SETUSER", prefix, "reset", "on", ">secret", *acl_rules(prefix))
    yield backend
    backend.command("ACL", "DELUSER", prefix)


@pytest.fixture
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop] | None:
    return uvloop.new_event_loop if request.node.callspec.params["backend"].endswith("uvloop") else None


pytestmark = pytest.mark.usefixtures("loop_factory")


# Delivery


async def test_what_is_sent_after_subscribe_returned_arrives_from_every_node(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        await a.broker.subscribe("room:r")
        position = await a.broker.append("r", b"own", history=HISTORY)
        await b.broker.append("r", b"other", history=HISTORY)
        await b.broker.publish("room:r", b"signal")
        await a.sink.wait_count("room:r", 3)
        first, second, third = a.sink.of("room:r")
        assert first == Entry(position.epoch, 1, b"0", position.tag, b"own")
        assert isinstance(second, Entry) and second.prev == position.tag and second.offset == 2
        assert third == Signal(b"signal")


@pytest.mark.parametrize("channel", ["room:r", "path:/chat/x", "user:42", "presence", "node:b"])
async def test_every_kind_of_channel_carries_signals(backend: Backend, channel: str) -> None:
    async with backend.nodes("a", "b") as (a, b):
        await b.broker.subscribe(channel)
        await a.broker.publish(channel, b"x")
        await b.sink.wait_count(channel, 1)
        assert b.sink.deliveries == [(channel, Signal(b"x"))]


async def test_it_arrives_once_however_often_subscribed(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        await asyncio.gather(*(a.broker.subscribe("room:r") for _ in range(5)))
        await a.broker.subscribe("room:r")
        await b.broker.append("r", b"1", history=HISTORY)
        await b.broker.append("r", b"2", history=HISTORY)
        await a.sink.wait_count("room:r", 2)
        assert a.sink.payloads("room:r") == [b"1", b"2"]


async def test_entries_of_a_room_have_one_order_on_every_node(backend: Backend) -> None:
    async with backend.nodes("a", "b") as nodes:
        await asyncio.gather(*(node.broker.subscribe("room:r") for node in nodes))

        async def flood(number: int) -> list[Position]:
            positions = []
            for i in range(100):
                append = nodes[number].broker.append("r", b"%d:%d" % (number, i), history=HISTORY)
                if i % 7 == 0:
                    await asyncio.sleep(0)
                positions.append(append)
            return list(await asyncio.gather(*positions))

        given = await asyncio.gather(flood(0), flood(1))
        for node in nodes:
            await node.sink.wait_count("room:r", 200)
        entries = nodes[0].sink.entries("r")
        assert entries == nodes[1].sink.entries("r")
        assert [entry.offset for entry in entries] == list(range(1, 201))
        assert [entry.prev for entry in entries] == [b"0"] + [entry.tag for entry in entries[:-1]]
        assert len({entry.tag for entry in entries}) == 200
        for number in (0, 1):  # and the order of the calls of each
            mine = [entry for entry in entries if entry.payload.startswith(b"%d:" % number)]
            assert [Position(e.epoch, e.offset, e.tag) for e in mine] == given[number]
            assert [entry.payload for entry in mine] == [b"%d:%d" % (number, i) for i in range(100)]


async def test_appends_of_many_ticks_and_rooms_keep_the_order_of_the_calls(backend: Backend) -> None:
    async with backend.nodes("a", max_waiting_publishes=2000) as (a,):
        futures: dict[str, list[asyncio.Future[Position]]] = {"x": [], "y": []}
        for i in range(1200):  # more than one call to Redis takes
            futures["xy"[i % 2]].append(a.broker.append("xy"[i % 2], b"", history=HISTORY))
            if i % 500 == 0:
                await asyncio.sleep(0)
        for given in futures.values():
            assert [(await future).offset for future in given] == list(range(1, 601))


async def test_signals_and_entries_of_one_node_keep_their_order(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        await b.broker.subscribe("room:r")
        for i in range(50):
            a.broker.append("r", b"e%d" % i, history=HISTORY)
            a.broker.publish("room:r", b"s%d" % i)
        await b.sink.wait_count("room:r", 100)
        assert b.sink.payloads("room:r") == [b"%s%d" % (kind, i) for i in range(50) for kind in (b"e", b"s")]


async def test_after_unsubscribe_nothing_more_arrives(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        await asyncio.gather(a.broker.subscribe("room:r"), a.broker.subscribe("room:s"))
        before = a.broker.append("r", b"before", history=HISTORY)
        await a.broker.unsubscribe("room:r")
        delivered = len(a.sink.of("room:r"))  # the one before may still have come
        await before
        await b.broker.append("r", b"after", history=HISTORY)
        await b.broker.append("s", b"end", history=HISTORY)
        await a.sink.wait_count("room:s", 1)
        assert len(a.sink.of("room:r")) == delivered
        await a.broker.unsubscribe("room:r")
        await a.broker.unsubscribe("room:never")


async def test_nothing_is_delivered_from_the_call_of_unsubscribe_on(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        await a.broker.subscribe("room:r")
        for _ in range(20):
            flood = [b.broker.append("r", b"x", history=HISTORY) for _ in range(20)]
            await a.sink.wait_for(lambda: a.sink.deliveries)
            leaving = asyncio.ensure_future(a.broker.unsubscribe("room:r"))
            await asyncio.sleep(0)
            a.sink.deliveries.clear()
            await asyncio.gather(*flood, leaving)
            assert a.sink.deliveries == []
            await a.broker.subscribe("room:r")


async def test_a_channel_left_and_joined_again_at_once_is_joined(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        await a.broker.subscribe("room:r")
        await asyncio.gather(a.broker.unsubscribe("room:r"), a.broker.subscribe("room:r"))
        await b.broker.append("r", b"x", history=HISTORY)
        await a.sink.wait_count("room:r", 1)
        await asyncio.gather(a.broker.subscribe("room:r"), a.broker.unsubscribe("room:r"))
        await eventually(lambda: backend.subscribers("room:r") == 0)


async def test_a_node_that_is_not_subscribed_receives_no_message(backend: Backend) -> None:
    # no heartbeat while we count
    async with backend.nodes("a", "b", heartbeat_s=3600) as (a, b):
        await a.broker.subscribe("room:r")
        await b.broker.subscribe("room:other")
        assert backend.subscribers("room:r") == 1
        bytes_in = b.broker.stats.bytes_in
        await asyncio.gather(*(a.broker.append("r", bytes(1000), history=HISTORY) for _ in range(100)))
        await a.sink.wait_count("room:r", 100)
        assert a.broker.stats.bytes_in >= 100_000
        assert not b.sink.deliveries
        assert b.broker.stats.bytes_in - bytes_in < 10_000, "at most what Redis answers about itself"
        await a.broker.unsubscribe("room:r")
        assert backend.subscribers("room:r") == 0


async def test_delivery_comes_in_a_later_tick_and_many_at_once(backend: Backend) -> None:
    async with backend.nodes("a") as (a,):
        await a.broker.subscribe("room:r")
        futures = [a.broker.append("r", b"x", history=HISTORY) for _ in range(200)]
        assert not a.sink.deliveries
        await asyncio.gather(*futures)
        await a.sink.wait_count("room:r", 200)
        assert max(a.sink.batches) > 20


async def test_one_tick_brings_no_more_than_about_128_kib(backend: Backend) -> None:
    async with backend.nodes("a") as (a,):
        await a.broker.subscribe("room:r")
        await asyncio.gather(*(a.broker.append("r", bytes(4096), history=HISTORY) for _ in range(200)))
        await a.sink.wait_count("room:r", 200)
        assert max(a.sink.batches) * 4096 <= 128 * 1024 + 4096


@pytest.mark.parametrize(
    "payload",
    [b"", bytes(range(256)), b"\r\n$-1\r\n", b"\x01\x93", "é☃".encode(), bytes(1024 * 1024)],
    ids=["empty", "all bytes", "resp", "envelope", "utf-8", "1 MiB"],
)
async def test_payloads_are_untouched_bytes(backend: Backend, payload: bytes) -> None:
    async with backend.nodes("a", "b") as (a, b):
        await b.broker.subscribe("room:r")
        await a.broker.append("r", payload, history=HISTORY)
        await a.broker.publish("room:r", payload)
        await b.sink.wait_count("room:r", 2)
        assert b.sink.payloads("room:r") == [payload, payload]
        assert (await b.broker.read("r", 0, 10)).entries[0].payload == payload


@pytest.mark.parametrize("room", ["a:b", "{1}", "}{", "log:r", "*", "r\n", "é☃", "x" * 128])
async def test_any_room_name_is_a_room_of_its_own(backend: Backend, room: str) -> None:
    async with backend.nodes("a") as (a,):
        await asyncio.gather(a.broker.subscribe(f"room:{room}"), a.broker.subscribe("room:r"))
        assert (await a.broker.append("r", b"r", history=HISTORY)).offset == 1
        assert (await a.broker.append(room, b"other", history=HISTORY)).offset == 1
        await asyncio.gather(a.sink.wait_count(f"room:{room}", 1), a.sink.wait_count("room:r", 1))
        assert a.sink.payloads(f"room:{room}") == [b"other"]
        assert a.sink.payloads("room:r") == [b"r"]


async def test_installations_with_other_prefixes_do_not_meet(backend: Backend) -> None:
    async with (
        backend.nodes("a") as (a,),
        running(Backend(backend.server, backend.prefix + "x").broker("a")) as other,
    ):
        await asyncio.gather(a.broker.subscribe("room:r"), other.broker.subscribe("room:r"))
        await a.broker.append("r", b"mine", history=HISTORY, dedup=Dedup("s", "k"))
        position = await other.broker.append("r", b"theirs", history=HISTORY, dedup=Dedup("s", "k"))
        await asyncio.gather(a.sink.wait_count("room:r", 1), other.sink.wait_count("room:r", 1))
        await other.broker.announce({"name": "theirs"}, 60)
        assert position.offset == 1
        assert a.sink.payloads("room:r") == [b"mine"]
        assert other.sink.payloads("room:r") == [b"theirs"]
        assert await a.broker.nodes() == []


# Logs


async def test_reading_gives_the_top_and_what_came_after_an_offset(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        positions = [await a.broker.append("r", b"%d" % i, history=HISTORY) for i in range(1, 11)]
        for since, limit, offsets in [
            (0, 100, range(1, 11)),
            (7, 100, range(8, 11)),
            (3, 2, range(4, 6)),
            (10, 5, []),
            (11, 5, []),
            (MAX_OFFSET, 5, []),
            (0, 0, []),
            (None, 5, []),
        ]:
            page = await b.broker.read("r", since, limit)
            assert page.top == positions[-1]
            assert [entry.offset for entry in page.entries] == list(offsets)
        entries = (await b.broker.read("r", 0, 100)).entries
        assert [Position(e.epoch, e.offset, e.tag) for e in entries] == positions
        assert [entry.prev for entry in entries] == [b"0"] + [position.tag for position in positions[:-1]]
        assert [entry.payload for entry in entries] == [b"%d" % i for i in range(1, 11)]


async def test_reading_opens_a_log_that_the_first_append_continues(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        page = await a.broker.read("r", None, 10)
        assert page.entries == [] and page.top[1:] == (0, b"0") and len(page.top.epoch) == 16
        assert (await b.broker.read("r", 0, 10)).top == page.top
        assert (await b.broker.append("r", b"x", history=HISTORY)).epoch == page.top.epoch


@pytest.mark.parametrize(("since", "limit"), [(-1, 10), (MAX_OFFSET + 1, 10), (0, -1)])
async def test_reading_outside_of_all_offsets_is_an_error(backend: Backend, since: int, limit: int) -> None:
    async with backend.nodes("a") as (a,):
        with pytest.raises(ValueError, match="since"):
            await a.broker.read("r", since, limit)


async def test_rooms_have_epochs_and_tags_of_their_own(backend: Backend) -> None:
    async with backend.nodes("a") as (a,):
        positions = await asyncio.gather(*(a.broker.append(f"r{i % 4}", b"", history=HISTORY) for i in range(40)))
        assert len({position.tag for position in positions}) == 40
        assert all(len(position.tag) == 16 for position in positions)


async def test_the_tops_of_many_rooms_come_in_order_and_none_for_a_room_without_log(backend: Backend) -> None:
    async with backend.nodes("a", "b", max_waiting_publishes=2000) as (a, b):
        appends = [a.broker.append(f"r{i}", b"x", history=HISTORY) for i in range(0, 1200, 2)]
        positions = await asyncio.gather(*appends)
        tops = await b.broker.tops([f"r{i}" for i in range(1200)])
        assert tops[::2] == positions
        assert tops[1::2] == [None] * 600
        assert await b.broker.tops([]) == []


async def test_history_keeps_max_entries_and_at_most_128_more(backend: Backend) -> None:
    history = History(max_entries=10)
    async with backend.nodes("a") as (a,):
        lengths = []
        for i in range(1, 300):
            await a.broker.append("r", b"x", history=history)
            page = await a.broker.read("r", 0, 1000)
            offsets = [entry.offset for entry in page.entries]
            assert page.top.offset == i
            assert offsets == list(range(i - len(offsets) + 1, i + 1))
            assert min(10, i) <= len(offsets) <= 10 + 128
            lengths.append(len(offsets))
        assert 10 in lengths[50:]  # trimmed to the number asked for, not to less


async def test_history_keeps_no_more_than_max_bytes(backend: Backend) -> None:
    history = History(max_bytes=1000)
    async with backend.nodes("a") as (a,):
        for size in [100] * 15 + [600, 300, 999, 1, 1, 1000, 10, 1001, 10]:
            top = await a.broker.append("r", bytes(size), history=history)
            entries = (await a.broker.read("r", 0, 1000)).entries
            kept = sum(len(entry.payload) for entry in entries)
            assert kept <= 1000
            assert [e.offset for e in entries] == list(range(top.offset - len(entries) + 1, top.offset + 1))
            if size == 100:
                assert kept == min(1000, 100 * top.offset)  # and no less than it may


async def test_bytes_are_counted_right_after_entries_were_trimmed_by_number(backend: Backend) -> None:
    async with backend.nodes("a") as (a,):
        for _ in range(2):  # the second round finds the count of the first
            by_number = [a.broker.append("r", bytes(100), history=History(max_entries=5)) for _ in range(300)]
            await asyncio.gather(*by_number)
        kept = len((await a.broker.read("r", 0, 1000)).entries)
        limit = 100 * (kept + 1)
        await a.broker.append("r", bytes(100), history=History(max_bytes=limit))
        assert len((await a.broker.read("r", 0, 1000)).entries) == kept + 1
        await a.broker.append("r", bytes(100), history=History(max_bytes=limit))
        assert len((await a.broker.read("r", 0, 1000)).entries) == kept + 1


async def test_history_ends_by_age_and_the_log_goes_on(backend: Backend) -> None:
    async with backend.nodes("a") as (a,):
        old = await a.broker.append("r", bytes(900), history=History(ttl_s=0.05, max_bytes=1000))

        async def forgotten() -> bool:
            return not (await a.broker.read("r", 0, 10)).entries

        await eventually(forgotten)
        assert (await a.broker.read("r", 0, 10)).top == old
        new = await a.broker.append("r", bytes(900), history=History(max_bytes=1000))  # the old bytes do not count
        page = await a.broker.read("r", 0, 10)
        assert [(e.offset, e.prev) for e in page.entries] == [(2, old.tag)]
        assert (new.epoch, new.offset) == (old.epoch, 2)


async def test_a_cleared_log_has_no_entries_and_goes_on(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        for _ in range(3):
            old = await a.broker.append("r", bytes(900), history=History(max_bytes=5000))
        await a.broker.append("other", b"x", history=HISTORY)
        await a.broker.advance("r", "1", "read", 2, b"")
        await b.broker.clear("r")
        page = await a.broker.read("r", 0, 10)
        assert (page.top, page.entries) == (old, [])
        assert await a.broker.marks("r") == [Mark("1", 2, 2)]
        for _ in range(5):  # the old bytes do not count
            new = await a.broker.append("r", bytes(900), history=History(max_bytes=5000))
        page = await a.broker.read("r", 0, 10)
        assert [e.offset for e in page.entries] == [4, 5, 6, 7, 8] and page.entries[0].prev == old.tag
        assert (new.epoch, new.offset) == (old.epoch, 8)
        assert len((await a.broker.read("other", 0, 10)).entries) == 1
        await a.broker.clear("never")
        assert await a.broker.tops(["never"]) == [None]


async def test_a_user_is_forgotten_in_all_rooms_of_this_installation(backend: Backend) -> None:
    rooms = [f"room:{{{n}}}*" for n in range(450)]  # more than one step of the search
    async with backend.nodes("a", "b") as (a, b):
        await asyncio.gather(*(a.broker.append(room, b"x", history=HISTORY) for room in rooms))
        await asyncio.gather(*(a.broker.advance(room, "42", "read", 1, b"") for room in rooms))
        await asyncio.gather(*(a.broker.advance(room, '"42"', "read", 1, b"") for room in rooms[:2]))
        assert await b.broker.forget_user("42") == len(rooms)
        assert await b.broker.forget_user("42") == 0
        assert [await a.broker.marks(room) for room in rooms[:3]] == [[Mark('"42"', 1, 1)]] * 2 + [[]]
        assert await a.broker.advance(rooms[2], "42", "read", 1, b""), "from then on all begins anew"


async def test_without_history_offsets_and_tags_go_on(backend: Backend) -> None:
    none = History(max_entries=0)
    async with backend.nodes("a") as (a,):
        await a.broker.subscribe("room:r")
        await a.broker.append("r", b"kept", history=HISTORY)
        positions = [await a.broker.append("r", b"x", history=none) for _ in range(3)]
        page = await a.broker.read("r", 0, 10)
        assert page == (positions[-1], [])
        assert [position.offset for position in positions] == [2, 3, 4]
        await a.broker.append("r", b"kept again", history=HISTORY)
        page = await a.broker.read("r", 0, 10)
        assert [(e.offset, e.prev, e.payload) for e in page.entries] == [(5, positions[-1].tag, b"kept again")]
        await a.sink.wait_count("room:r", 5)
        assert [entry.offset for entry in a.sink.entries("r")] == [1, 2, 3, 4, 5]


# Retry keys


async def test_a_repetition_gets_the_first_position_and_is_not_delivered(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        await a.broker.subscribe("room:r")
        dedup = Dedup("s", "k")
        first = await a.broker.append("r", b"first", history=HISTORY, dedup=dedup)
        await a.broker.append("r", b"between", history=HISTORY)
        assert await b.broker.append("r", b"again", history=HISTORY, dedup=dedup) == first
        assert await a.broker.append("r", b"again", history=HISTORY, dedup=dedup) == first
        await a.broker.append("r", b"end", history=HISTORY)
        await a.sink.wait_count("room:r", 3)
        assert a.sink.payloads("room:r") == [b"first", b"between", b"end"]
        assert (await a.broker.read("r", 0, 10)).top.offset == 3


async def test_racing_repetitions_on_two_nodes_are_one_entry(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        for i in range(50):
            dedup = Dedup("s", str(i))
            both = [node.broker.append("r", b"x", history=HISTORY, dedup=dedup) for node in (a, b, a)]
            assert len(set(await asyncio.gather(*both))) == 1
        assert (await a.broker.read("r", None, 0)).top.offset == 50


async def test_retry_keys_of_others_do_not_collide(backend: Backend) -> None:
    async with backend.nodes("a") as (a,):
        appends = [
            a.broker.append(room, b"x", history=HISTORY, dedup=Dedup(sender, key))
            for room, sender, key in [
                ("r", "b", "c:d"),
                ("r", "b:c", "d"),
                ("r", "b:1:c", "d"),
                ("r", "", "b:c:d"),
                ("r:1:b", "c", "d"),
                ("r", "b", "c:d:"),
            ]
        ]
        positions = await asyncio.gather(*appends)
        assert [position.offset for position in positions] == [1, 2, 3, 4, 1, 5]


async def test_a_retry_key_is_forgotten_after_its_time(backend: Backend) -> None:
    async with backend.nodes("a", dedup_ttl_s=0.05) as (a,):
        first = await a.broker.append("r", b"x", history=HISTORY, dedup=Dedup("s", "k"))

        async def forgotten() -> bool:
            position = await a.broker.append("r", b"x", history=HISTORY, dedup=Dedup("s", "k"))
            return bool(position != first)

        await eventually(forgotten)


# Nodes


async def test_nodes_describe_themselves(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        assert await a.broker.nodes() == []
        await a.broker.announce({"name": "a", "connections": 1}, 60)
        await a.broker.announce({"name": "a", "connections": 2}, 60)
        await b.broker.announce({"name": "b", "rooms": ["é", None, 1.5]}, 60)
        found = sorted(await b.broker.nodes(), key=lambda node: str(node["name"]))
        assert found == [{"name": "a", "connections": 2}, {"name": "b", "rooms": ["é", None, 1.5]}]


async def test_a_description_ends_with_its_time(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        await a.broker.announce({"name": "a"}, 0.05)
        await b.broker.announce({"name": "b"}, 60)

        async def names() -> bool:
            return bool(await b.broker.nodes() == [{"name": "b"}])

        await eventually(names)


# Life


async def test_a_started_broker_becomes_ready_without_a_word_to_the_sink(backend: Backend) -> None:
    broker = backend.broker("a")
    assert not broker.ready and broker.reason == "not started"
    async with running(broker) as a:
        assert broker.ready and broker.reason == ""
        assert a.sink.events == []


async def test_closing_twice_is_once_and_a_closed_broker_refuses(backend: Backend) -> None:
    async with backend.nodes("a", "b") as (a, b):
        await a.broker.subscribe("room:r")
        await a.broker.close()
        await a.broker.close()
        assert not a.broker.ready and a.broker.reason == "closed"
        a.broker.publish("room:r", b"ignored")
        for refused in (
            a.broker.append("r", b"x", history=HISTORY),
            a.broker.publish("room:r", b"x"),
            a.broker.read("r", 0, 10),
            a.broker.tops(["r"]),
            a.broker.clear("r"),
            a.broker.forget_user("1"),
            a.broker.subscribe("room:s"),
            a.broker.announce({}, 60),
            a.broker.nodes(),
        ):
            with pytest.raises(Unavailable, match="closed"):
                await refused
        await a.broker.unsubscribe("room:r")
        await eventually(lambda: backend.subscribers("room:r") == 0)
        await b.broker.append("r", b"x", history=HISTORY)
        assert a.sink.deliveries == []


async def test_what_waits_at_close_fails_or_is_answered(backend: Backend) -> None:
    async with backend.nodes("a") as (a,):
        futures = [a.broker.append("r", b"x", history=HISTORY) for _ in range(600)]
        await asyncio.sleep(0)
        await a.broker.close()
        assert all(future.done() for future in futures)
        refused = [future for future in futures if future.exception() is not None]
        assert all(isinstance(future.exception(), Unavailable) for future in refused)
        assert sorted(f.result().offset for f in futures if f not in refused) == list(range(1, 601 - len(refused)))


async def test_a_publish_that_failed_may_be_ignored(backend: Backend) -> None:
    broker = backend.broker("a")
    await broker.close()
    broker.publish("room:r", b"x")
    broker.append("r", b"x", history=HISTORY)  # conftest fails the test for an exception never retrieved
