"""What a node says of sentinels that it cannot use, and that their login is their own."""

from __future__ import annotations

import pytest

from broker.base import History
from broker.options import BrokerOptions
from broker.redis.broker import RedisBroker
from tests.support.brokers import running
from tests.support.redis_sentinel import NAME, RedisSentinels

pytestmark = pytest.mark.redis


def broker(url: str, prefix: str) -> RedisBroker:
    return RedisBroker(url, node_id="a", options=BrokerOptions(prefix=prefix, heartbeat_s=0.5, backoff_max_s=0.3))


async def test_sentinels_have_a_login_of_their_own(redis_sentinels: RedisSentinels, prefix: str) -> None:
    for sentinel in redis_sentinels.sentinels:
        rights = ("+sentinel|master", "+auth", "+client|setname")
        sentinel.command("ACL", "SETUSER", prefix, "reset", "on", ">asked", *rights)
    url = f"{redis_sentinels.url}?sentinel_username={prefix}&sentinel_password="
    async with running(broker(url + "asked", prefix)) as a:
        assert (await a.broker.append("r", b"", history=History())).offset == 1
    async with running(broker(url + "guessed", prefix), wait_ready=False) as a:
        await a.sink.wait_for(lambda: a.sink.events)
        assert "no sentinel tells" in a.broker.reason and "WRONGPASS" in a.broker.reason


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis+sentinel://127.0.0.1:1,127.0.0.1:2/main", "cannot connect to Redis at 127.0.0.1"),
        ("{sentinels}/nobody", "No such master"),
        ("redis+sentinel://127.0.0.1:{data}/main", "does not answer as one"),
    ],
)
async def test_sentinels_that_are_none_are_a_reason(
    redis_sentinels: RedisSentinels, prefix: str, url: str, reason: str
) -> None:
    sentinels = redis_sentinels.url.removesuffix(f"/{NAME}")
    filled_in = url.format(sentinels=sentinels, data=redis_sentinels.master.port)
    async with running(broker(filled_in, prefix), wait_ready=False) as a:
        await a.sink.wait_for(lambda: a.sink.events)
        assert "no sentinel tells where" in a.broker.reason and reason in a.broker.reason
        assert not a.broker.ready


async def test_one_sentinel_that_answers_is_enough(redis_sentinels: RedisSentinels, prefix: str) -> None:
    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{redis_sentinels.sentinels[2].port}/{NAME}"
    async with running(broker(url, prefix)) as a:
        assert (await a.broker.append("r", b"", history=History())).offset == 1
