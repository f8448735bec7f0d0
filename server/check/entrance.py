"""Checks of who gets in: address, certificate, handshake, Origin, credentials."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Final

from server import closing
from server.check.client import WITHIN_S, Client, Refused, in_words
from server.check.diagnosis import HEADERS, HOST, ORIGINS, TRUST
from server.check.report import Finding, Status, Trouble
from server.check.world import World

FOREIGN: Final = "https://roomcast-check.invalid"
SOON_DAYS: Final = 14
RENEW: Final = "renew it, and let the proxy load it: nginx -s reload"
LONG_TOKEN: Final = "x" * 7000
"""Longer than some proxies allow a request line to be, shorter than the nodes do."""


async def address(world: World) -> Finding:
    target = world.dialer.target
    try:
        async with asyncio.timeout(WITHIN_S):
            _, writer = await asyncio.open_connection(target.host, target.port)
    except TimeoutError:
        raise Trouble(
            f"{target.authority} does not answer", "is a firewall between, or does the name lead to an old address?"
        ) from None
    except OSError as error:
        raise Trouble(
            f"no connection to {target.authority}: {in_words(error)}", "is the proxy running, on this port?"
        ) from None
    where = writer.get_extra_info("peername")[0]
    writer.close()
    if not target.secure and not target.is_local:
        advice = "tokens can be read on the way: let the proxy speak TLS (deploy/nginx/tls.conf)"
        return Finding("warning", f"{where} port {target.port}, without TLS", advice)
    return Finding("ok", f"{where} port {target.port}")


async def certificate(world: World) -> Finding:
    """If it is not good the other checks go on without looking at it."""
    target, trust = world.dialer.target, world.dialer.trust
    if trust is None:
        return Finding("skipped", "no TLS")
    try:
        async with asyncio.timeout(WITHIN_S):
            _, writer = await asyncio.open_connection(target.host, target.port, ssl=trust, server_hostname=target.host)
    except ssl.SSLCertVerificationError as error:
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        advice = TRUST if "mismatch" not in error.verify_message else "nginx: ssl_certificate for this very name"
        if error.verify_code == 10:  # X509_V_ERR_CERT_HAS_EXPIRED
            advice = RENEW
        raise Trouble(f"clients do not trust it: {error.verify_message}", advice) from None
    except (OSError, TimeoutError) as error:
        raise Trouble(f"no TLS there: {error or 'no answer'}", "nginx: listen … ssl; or use http:// or ws://") from None
    expires_s = ssl.cert_time_to_seconds(writer.get_extra_info("peercert")["notAfter"])
    writer.close()
    days = int((expires_s - time.time()) // 86400)
    if days < SOON_DAYS:
        return Finding("warning", f"trusted, for {days} more days only", RENEW)
    return Finding("ok", f"trusted, for {days} days")


async def handshake(world: World) -> Finding:
    """Whoever it is: credentials are looked at after the 101."""
    began_s = time.monotonic()
    await world.open({})
    return Finding("ok", f"101 within {(time.monotonic() - began_s) * 1000:.0f} ms")


async def foreign_origin(world: World) -> Finding:
    try:
        await world.open({}, FOREIGN)
    except Refused as refused:
        if refused.answer.status == 403:
            return Finding("ok", "a page from elsewhere is refused (403)")
        raise
    raise Trouble(
        f"a page from {FOREIGN} may connect, with its visitor's cookies",
        "take * out of ROOMCAST_ORIGINS; nginx must pass Origin on as it is: no proxy_set_header Origin",
    )


async def own_origin(world: World) -> Finding:
    origins = (world.dialer.target.origin, *world.origins)
    for origin in origins:
        try:
            await world.open({}, origin)
        except Refused as refused:
            if refused.answer.status != 403:
                raise
            own = origin == world.dialer.target.origin
            why = ": the node sees another Host than the browser" if own else ""
            raise Trouble(f"a page from {origin} is refused{why}", HOST if own else ORIGINS) from None
    return Finding("ok", f"a page from {' and from '.join(origins)} may connect")


async def no_credentials(world: World) -> Finding:
    client = await world.open({})
    if await client.is_let_in():
        return Finding("warning", "who has no token is let in, as nobody", "right for public rooms only")
    return Finding("ok", f"refused: {client.refusal}")


async def development_mode(world: World) -> Finding:
    """In it anybody could be anybody."""
    client = await world.open({"user": "roomcast-check"})
    if not await client.is_let_in() or client.greeting["user_id"] != "roomcast-check":
        return Finding("ok", "off")
    world.development = True
    status: Status = "warning" if world.dialer.target.is_local else "failed"
    return Finding(status, "on: anybody is whoever ?user= says", "take ROOMCAST_DEV away from the nodes")


async def bad_token(world: World) -> Finding:
    """Almost as long as one may be, so that a proxy's limit shows, too."""
    try:
        client = await world.open({"token": LONG_TOKEN})
    except Refused as refused:
        if refused.answer.status in (400, 413, 414, 431):
            what = f"a token of {len(LONG_TOKEN)} bytes does not get through ({refused.answer.status})"
            raise Trouble(what, HEADERS) from None
        if refused.answer.status == 429 and refused.answer.of_a_node:
            return Finding("ok", f"refused (429): {refused.answer.text}")
        raise
    if await client.is_let_in():
        if world.development:
            return Finding("skipped", "in development mode a token says nothing")
        raise Trouble("a token that nobody signed is accepted", "look at the application's @hub.authenticate")
    return Finding("ok", f"refused: {client.refusal}")


async def credentials(world: World) -> Finding:
    """Both users get in."""
    for query in world.tickets.queries:
        client = await world.open(query)
        if not await client.is_let_in():
            return _not_let_in(world, client)
        world.members.append(client)
    return Finding("ok", " and ".join(f"let in as {member.greeting['user_id']}" for member in world.members))


def _not_let_in(world: World, client: Client) -> Finding:
    world.members.clear()
    if world.tickets.kind == "dev":
        advice = "give --token, or the nodes' ROOMCAST_SECRET"
        return Finding("skipped", f"there is nothing to get in with ({client.refusal})", advice)
    if client.close_code != closing.UNAUTHENTICATED:
        advice = "docs/protocol.md says what the close codes mean"
    elif world.tickets.kind == "token":
        advice = "get a fresh token from your application"
    else:
        advice = "is ROOMCAST_SECRET the one of the nodes, with the same audience and issuer? Do the clocks agree?"
    return Finding("failed", f"not let in: {client.refusal}", advice)
