"""Conversations with the client's state machine, frame by frame."""

from __future__ import annotations

from typing import Any

from roomcast_client.effects import Effect, Send, Tell, TellRoom
from roomcast_client.events import Message
from roomcast_client.machine import Machine

NOW = 100.0
WELCOME = {"op": "welcome", "version": 1, "session": "s", "node": "n1", "user_id": 42, "ping": 10, "max_message": 65536}


def message(offset: int, data: Any = "x", room: str = "r") -> dict[str, Any]:
    return {
        "op": "broadcast",
        "type": "message",
        "room": room,
        "offset": offset,
        "tag": f"t{offset}",
        "user_id": 7,
        "ts": 1.5,
        "data": data,
    }


def joined(
    number: int, offset: int, *, epoch: str = "e", messages: list[Any] | None = None, **more: Any
) -> dict[str, Any]:
    reply = {
        "op": "reply",
        "id": number,
        "ok": True,
        "room": "r",
        "epoch": epoch,
        "offset": offset,
        "tag": f"t{offset}",
    }
    return reply | {"recovered": None, "messages": messages or []} | more


def sent(effects: list[Effect]) -> list[dict[str, Any]]:
    return [effect.frame for effect in effects if isinstance(effect, Send)]


def told(effects: list[Effect]) -> list[Any]:
    return [effect.event for effect in effects if isinstance(effect, TellRoom | Tell)]


def offsets(effects: list[Effect]) -> list[int]:
    return [event.offset for event in told(effects) if isinstance(event, Message)]


def connected() -> Machine:
    machine = Machine()
    machine.opened(NOW)
    machine.received(WELCOME, NOW, 0)
    return machine


def join(machine: Machine, ticket: int = 1, **options: Any) -> list[Effect]:
    settings = {"presence": False, "history": 0, "resume": None, "timeout_s": 10.0} | options
    return machine.join(ticket, "r", NOW, **settings)


def in_room(offset: int = 5) -> Machine:
    """Connected, joined with the id 1, live after ``offset``."""
    machine = connected()
    join(machine)
    machine.received(joined(1, offset), NOW, 0)
    return machine


def reconnected(machine: Machine, welcome: dict[str, Any] = WELCOME) -> list[Effect]:
    """A cut, and everything the client says and tells up to its next join."""
    effects = machine.closed(1006, "", NOW, 0)
    return effects + machine.opened(NOW) + machine.received(welcome, NOW, 0)


def send(machine: Machine, ticket: int = 9, **options: Any) -> list[Effect]:
    frame = {"op": "message", "room": "r", "key": f"k{ticket}"}
    return machine.request(ticket, frame, NOW, data='"hi"', room="r", timeout_s=options.get("timeout_s", 30.0))
