"""All checks, in their order; a check that needs another one is skipped where that one failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NamedTuple

from websockets.exceptions import ConnectionClosed

from server.check import entrance, exposure, inside
from server.check.client import Refused
from server.check.diagnosis import no_upgrade
from server.check.report import NEEDS, Finding, Line, Trouble
from server.check.world import World

LONGEST_S: Final = 30.0


class Check(NamedTuple):
    name: str
    run: Callable[[World], Awaitable[Finding]]
    needs: str | None = None


CHECKS: Final = (
    Check("address", entrance.address),
    Check("certificate", entrance.certificate, "address"),
    Check("handshake", entrance.handshake, "address"),
    Check("origin of its own", entrance.own_origin, "handshake"),
    Check("foreign origin", entrance.foreign_origin, "handshake"),
    Check("development mode", entrance.development_mode, "handshake"),
    Check("no token", entrance.no_credentials, "handshake"),
    Check("bad token", entrance.bad_token, "handshake"),
    Check("token", entrance.credentials, "handshake"),
    Check("join", inside.join, "token"),
    Check("round trip", inside.round_trip, "join"),
    Check("across nodes", inside.second_node, "round trip"),
    Check("presence", inside.presence, "round trip"),
    Check("resume", inside.resume, "round trip"),
    Check("long message", inside.long_message, "join"),
    Check("metrics", exposure.metrics, "address"),
    Check("api", exposure.behind_keys("/api", "/api/v1/openapi.json"), "address"),
    Check("status page", exposure.behind_keys("/status", "/status"), "address"),
    Check("readiness", exposure.readiness, "address"),
    Check("silence", inside.silence, "token"),
)
"""``certificate`` is needed by none: where it fails the others go on without looking at it."""

Tell = Callable[[str], None]


async def run(world: World, tell: Tell) -> AsyncIterator[Line]:
    """Each finding as it is made; ``tell`` hears which check begins."""
    usable: set[str] = set()
    quiet: asyncio.Task[Line] | None = None
    try:
        for check in CHECKS:
            tell(check.name)
            if check.run is inside.silence and quiet is not None:
                line = await quiet
            else:
                line = await _line(world, check, usable)
            if line.finding.status in ("ok", "warning"):
                usable.add(check.name)
            yield line
            if check.name == "token" and check.name in usable:
                quiet = asyncio.create_task(_line(world, CHECKS[-1], {*usable}))  # it takes its time beside the others
    finally:
        if quiet is not None:
            quiet.cancel()
            await asyncio.wait((quiet,))
        await world.close()


async def _line(world: World, check: Check, usable: set[str]) -> Line:
    if check.needs is not None and check.needs not in usable:
        return Line(check.name, Finding("skipped", NEEDS + check.needs), 0.0)
    began_s = time.monotonic()
    try:
        async with asyncio.timeout(LONGEST_S + (world.ping_s * 1.2 if check.run is inside.silence else 0)):
            finding = await check.run(world)
    except Trouble as trouble:
        finding = trouble.finding
    except Refused as refused:
        finding = no_upgrade(refused.answer).finding
    except TimeoutError:
        finding = Finding("failed", "no answer in time", "do the nodes hear Redis? What does /readyz say at each?")
    except ConnectionClosed as closed:
        finding = Finding(
            "failed", f"the connection ended: {closed}", "docs/protocol.md says what the close codes mean"
        )
    return Line(check.name, finding, time.monotonic() - began_s)
