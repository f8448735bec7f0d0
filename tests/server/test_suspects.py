"""Guessing of credentials: what is counted, and that nobody good is locked out."""

from __future__ import annotations

import asyncio

import jwt
import pytest

from server.denial import Denied
from server.suspects import MAX_WAITING, Suspects, subject_of


def token(user: object = "alice", secret: str = "x" * 32) -> str:
    return jwt.encode({"user_id": user, "exp": 1}, secret, "HS256")


def failed(suspects: Suspects, address: str | None, given: str | None) -> bool:
    """Whether these bad credentials were over the limit."""
    try:
        suspects.failed(address, given)
    except Denied as denied:
        assert denied.status == 429 and int(denied.headers["retry-after"]) >= 1
        return True
    return False


def test_bad_credentials_of_an_address_are_limited() -> None:
    suspects = Suspects(10)
    assert [failed(suspects, "192.0.2.1", None) for _ in range(12)] == [False] * 10 + [True] * 2
    assert not failed(suspects, "192.0.2.2", None)
    assert not any(failed(suspects, None, None) for _ in range(20)), "no address, no claim: nothing to count by"


def test_guesses_at_one_user_are_limited_wherever_they_come_from() -> None:
    suspects = Suspects(10)
    assert [failed(suspects, f"192.0.2.{n}", token()) for n in range(12)] == [False] * 10 + [True] * 2
    assert not failed(suspects, "192.0.2.99", token("bob"))


def test_whom_a_token_claims_to_be_of() -> None:
    assert subject_of(token()) == subject_of(jwt.encode({"sub": "alice"}, "y" * 32)) == "alice"
    assert subject_of(token(42)) == "42"
    for junk in (None, "", "a.b.c", "e30.e30.e30", "." * 500, jwt.encode({}, "y" * 32), token("a" * 200)):
        assert subject_of(junk) is None


async def test_of_a_suspected_address_one_handshake_is_checked_at_a_time_and_few_wait() -> None:
    suspects = Suspects(1)
    checking, most = 0, 0
    go = asyncio.Event()

    async def check() -> None:
        nonlocal checking, most
        async with suspects.checking("192.0.2.1"):
            checking += 1
            most = max(most, checking)
            await go.wait()
            checking -= 1

    before = [asyncio.create_task(check()) for _ in range(5)]
    await asyncio.sleep(0)
    assert most == 5, "nobody is suspected without a reason"
    go.set()
    await asyncio.gather(*before)
    failed(suspects, "192.0.2.1", None)
    go.clear()
    most = 0
    tasks = [asyncio.create_task(check()) for _ in range(MAX_WAITING + 10)]
    await asyncio.sleep(0.01)
    assert most == 1 and sum(task.done() for task in tasks) == 9
    async with suspects.checking("192.0.2.2"):
        pass
    go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, Denied) for result in results) == 9 and results[:MAX_WAITING] == [None] * MAX_WAITING
    assert not suspects._checks


async def test_a_check_that_waits_for_nobody_is_never_denied() -> None:
    """As that of a JWT: good tokens pass, whatever else comes from their address."""
    suspects = Suspects(1)

    async def check() -> None:
        async with suspects.checking("192.0.2.1"):
            pass

    failed(suspects, "192.0.2.1", None)
    await asyncio.gather(*(check() for _ in range(200)))


@pytest.mark.parametrize("per_min", [0.1, 1, 120])
def test_the_rate_is_per_minute(per_min: float) -> None:
    suspects = Suspects(per_min)
    count = max(1, round(per_min))
    assert [failed(suspects, "192.0.2.1", None) for _ in range(count + 1)] == [False] * count + [True]
