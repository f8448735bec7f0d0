"""What a master of a cluster says when a slot goes while answers are on their way; here a scripted server says it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import hiredis

from broker.options import BrokerOptions
from broker.redis.address import Address
from broker.redis.connection import Connection, connect
from broker.redis.keys import CLUSTER_SHARDS, Keys, Topic
from broker.redis.subscriber import Subscriber
from broker.redis.wanted import Wanted
from broker.stats import BrokerStats
from tests.support.sinks import RecordingSink
from tests.support.waiting import eventually

KEYS = Keys("p", CLUSTER_SHARDS)
SHARD = 5


class Scripted:
    """Confirms everything; an unsubscription only with what is in ``on_unsubscribe``."""

    def __init__(self) -> None:
        self.on_unsubscribe: list[bytes] = []
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Scripted]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                name = command[0].lower()
                if name == b"ssubscribe":
                    for channel in command[1:]:
                        writer.write(answer(b"ssubscribe", channel))
                elif name == b"sunsubscribe":
                    writer.writelines(self.on_unsubscribe)
                else:
                    writer.write(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n" if name == b"ping" else b"+OK\r\n")
        writer.close()


def answer(kind: bytes, channel: bytes) -> bytes:
    return b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n:1\r\n" % (len(kind), kind, len(channel), channel)


@asynccontextmanager
async def subscribed(
    server: Scripted, *channels: str
) -> AsyncIterator[tuple[Subscriber, Wanted, Connection, list[str]]]:
    """A subscriber with these channels confirmed; what it was told to look at."""
    lost: list[str] = []
    stats, options = BrokerStats(), BrokerOptions(unavailable_after_s=5)
    connection = await connect(
        Address("127.0.0.1", server.port),
        password=None,
        name="test",
        stats=stats,
        on_lost=lambda _side, why: lost.append(why),
        timeout_s=5,
    )
    moves: list[str] = []
    subscriber = Subscriber(KEYS, RecordingSink(), options, stats, moves.append)
    wanted = Wanted(KEYS, SHARD, "a", options.unavailable_after_s)
    subscriber.take(wanted)
    for channel in channels:
        wanted.want(channel)
    await subscriber.attach(connection)
    yield subscriber, wanted, connection, moves
    assert lost == [] and stats.reader_restarts == 0
    wanted.close()
    connection.abort("the end")
    await asyncio.wait((connection.ended,))


def name(channel: str) -> bytes:
    return KEYS.name(Topic(SHARD, channel)).encode()


def moved() -> bytes:
    return b"-MOVED %d 127.0.0.1:1\r\n" % KEYS.slot(SHARD)


async def test_an_unsubscription_answered_by_the_move_itself_is_not_taken_for_two_answers() -> None:
    async with Scripted().running() as server, subscribed(server, "room:x", "room:y") as (_, wanted, _, moves):
        # the slot has gone: all of it is unsubscribed, and the command that was on its way is refused
        server.on_unsubscribe = [
            answer(b"sunsubscribe", name("room:x")),
            answer(b"sunsubscribe", name("room:y")),
            moved(),
        ]
        await asyncio.wait_for(wanted.unsubscribe("room:x"), 5)
        await eventually(lambda: "room:y" in wanted.broken)
        assert moves and not wanted.confirmed["room:y"].done()
        await wanted.subscribe("room:z")  # the answers still fit


async def test_a_channel_that_was_lost_is_asked_for_again_once_it_was_looked_up() -> None:
    async with Scripted().running() as server, subscribed(server, "room:x", "room:y") as (subscriber, wanted, _, _):
        server.on_unsubscribe = [answer(b"sunsubscribe", name("room:x")), moved()]
        assert wanted.unsubscribe("room:other").done()  # nothing to say
        await asyncio.wait_for(wanted.unsubscribe("room:y"), 5)
        await eventually(lambda: "room:x" in wanted.broken)
        subscriber.reconcile()
        await wanted.subscribe("room:x")
        assert wanted.regained() == [] and "room:x" not in wanted.broken, "and told, once"
