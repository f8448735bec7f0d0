"""Checks of what members of a room have: messages across nodes, presence, resume, silence, and long messages."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from websockets.exceptions import ConnectionClosed

from server.check.client import Client
from server.check.diagnosis import TIMEOUT
from server.check.report import Finding, Trouble
from server.check.world import World

TRIES_PER_NODE: Final = 10
"""Connections, to meet so many nodes."""
SLOW_S: Final = 1.0
ARRIVES_WITHIN_S: Final = 5.0
PRESENCE_WITHIN_S: Final = 5.0
FRAME_BYTES: Final = 512
"""What stands around the data of a message, and more."""


async def silence(world: World) -> Finding:
    """Longer than a ping apart: whatever cuts a connection that is silent for less would cut all. What is silent for
    longer never is, because of the pings."""
    wait_s = world.ping_s * 1.2 + 0.5
    quiet = await world.enter(0)
    began_s = time.monotonic()
    if await quiet.ended(wait_s):
        lived_s = time.monotonic() - began_s
        raise Trouble(
            f"a silent connection was cut after {lived_s:.1f} s; nodes ping every {world.ping_s:g} s", TIMEOUT
        )
    return Finding("ok", f"a connection lives through {wait_s:.0f} s of silence")


async def join(world: World) -> Finding:
    for member in world.members:
        await member.ok("join", room=world.room)
    return Finding("ok", f"both are in {world.room}")


async def round_trip(world: World) -> Finding:
    first, second = world.members
    return await _pass(world, first, second, "from one connection to the other")


async def second_node(world: World) -> Finding:
    """The second member moves to another node than the first one's; connects until enough nodes were seen."""
    seen, tries, wanted = {*world.nodes}, 0, max(2, world.min_nodes)
    while len(seen) < wanted and tries < TRIES_PER_NODE * wanted:
        tries += 1
        again = await world.enter(1)
        node = str(again.greeting["node"])
        if node not in seen and len(seen) == 1:
            await again.ok("join", room=world.room)
            again, world.members[1] = world.members[1], again
        seen.add(node)
        await again.close()
    names = ", ".join(sorted(seen))
    if len(seen) < world.min_nodes:
        raise Trouble(f"only {names} answered {tries} connections", "nginx: does the upstream name all nodes?")
    if len(seen) == 1:
        return Finding("skipped", f"one node ({names}) in {tries} connections: say --nodes 2 if there are more")
    return await _pass(world, world.members[0], world.members[1], f"from {world.nodes[0]} to {world.nodes[1]}")


async def _pass(world: World, sender: Client, receiver: Client, way: str) -> Finding:
    """One message, and how long it took."""
    data = {"check": time.time_ns()}
    began_s = time.monotonic()
    await sender.ok("message", room=world.room, data=data)
    try:
        await receiver.next(
            lambda frame: frame.get("type") == "message" and frame.get("data") == data, ARRIVES_WITHIN_S
        )
    except TimeoutError:
        raise Trouble(
            f"a message {way} did not arrive",
            "do all nodes use the same ROOMCAST_BROKER and ROOMCAST_PREFIX? What does /readyz say at each?",
        ) from None
    took_s = time.monotonic() - began_s
    if took_s > SLOW_S:
        advice = "is something on the way holding messages back? See roomcast_subscriber_lag_seconds at the nodes"
        return Finding("warning", f"{way} in {took_s:.1f} s", advice)
    return Finding("ok", f"{way} in {took_s * 1000:.0f} ms")


async def long_message(world: World) -> Finding:
    """The longest that the nodes allow."""
    size = int(world.members[0].greeting["max_message"]) - FRAME_BYTES
    sender = await world.enter(0)
    try:
        await sender.ok("join", room=world.room)
        await sender.ok("message", room=world.room, data="x" * size, echo=False)
    except ConnectionClosed:
        raise Trouble(
            f"a message of {size} bytes ends the connection: {sender.refusal}",
            "does a firewall on the way limit messages? The nodes allow this one (ROOMCAST_MAX_MESSAGE_BYTES)",
        ) from None
    return Finding("ok", f"{size} bytes")


async def presence(world: World) -> Finding:
    wanted = {member.greeting["user_id"] for member in world.members}
    if None in wanted:
        return Finding("skipped", "who has no name is in no list")
    deadline_s = time.monotonic() + PRESENCE_WITHIN_S
    while True:
        reply = await world.members[0].ok("join", room=world.room, presence=True)
        here = set((reply.get("members") or {}).get("users", ()))
        if wanted <= here:
            return Finding("ok", f"{len(here)} in the room")
        if time.monotonic() > deadline_s:
            raise Trouble(
                f"{', '.join(map(str, sorted(wanted - here, key=str)))} should be in the room's presence and is not",
                "is a node's clock, or its way to Redis, disturbed? See roomcast_presence_… at the nodes",
            )
        await asyncio.sleep(0.2)


async def resume(world: World) -> Finding:
    """A connection is cut without a word; another brings what was missed meanwhile."""
    first, second = world.members
    at = await second.ok("join", room=world.room)
    second.cut()
    missed = {"missed": time.time_ns()}
    await first.ok("message", room=world.room, data=missed)
    again = await world.enter(1, session=str(second.greeting["session"]))
    world.members[1] = again
    position = {name: at[name] for name in ("epoch", "offset", "tag")}
    reply = await again.ok("join", room=world.room, resume=position)
    if reply.get("recovered") is not True:
        return Finding("warning", "what was missed is not kept for this room", "ROOMCAST_HISTORY says what is")
    if [message.get("data") for message in reply["messages"]] != [missed]:
        raise Trouble("what was missed is not in the answer", "this is a mistake in Roomcast: please report it")
    where = "another node" if again.greeting["node"] != second.greeting["node"] else "the same node"
    return Finding("ok", f"by {where}, with what was missed")
