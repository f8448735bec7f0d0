"""Checks of what can be reached that is not for clients, or (``--direct``) must be there for operators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from server.check.diagnosis import HIDE, Answer
from server.check.report import Finding, Trouble
from server.check.world import World

NO_KEYS: Final = "not there: the nodes have no ROOMCAST_API_KEYS"


async def metrics(world: World) -> Finding:
    answer = await _get(world, "/metrics")
    shown = answer.status == 200 and b"roomcast_" in answer.body
    if world.direct and not shown:
        raise Trouble(f"/metrics answers {answer.status}", "is it on a port of its own? See ROOMCAST_METRICS_PORT")
    return Finding("ok", "there") if world.direct else _hidden("/metrics", shown, answer)


def behind_keys(name: str, path: str) -> Callable[[World], Awaitable[Finding]]:
    """The check of something that is there only with keys."""

    async def check(world: World) -> Finding:
        answer = await _get(world, path)
        shown = answer.status == 200 and b"Roomcast" in answer.body
        if world.direct:
            return Finding("ok", "there" if shown else NO_KEYS)
        return _hidden(name, shown, answer)

    return check


async def readiness(world: World) -> Finding:
    answer = await _get(world, "/readyz")
    shown = answer.status in (200, 503) and b'"ready"' in answer.body
    if world.direct and answer.status != 200:
        raise Trouble(f"/readyz answers {answer.status}: {answer.text}", "the reason says what the node lacks")
    return Finding("ok", answer.text) if world.direct else _hidden("/readyz", shown, answer)


def _hidden(name: str, shown: bool, answer: Answer) -> Finding:
    if shown:
        raise Trouble(f"{name} can be read by everybody", HIDE)
    return Finding("ok", f"not to be had ({answer.status})")


async def _get(world: World, path: str) -> Answer:
    try:
        return await world.dialer.get(world.dialer.target.beside(path))
    except (OSError, TimeoutError, ValueError) as error:
        raise Trouble(f"no answer to GET {path}: {error or 'too late'}") from None
