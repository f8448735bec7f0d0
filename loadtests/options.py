"""Options that several scenarios have."""

from __future__ import annotations

from typing import Annotated

from typer import Option

Samples = Annotated[int, Option(min=1, help="How often each server is measured; the table shows medians.")]
Seconds = Annotated[float, Option("--seconds", min=0.1, help="How long each is measured, after a warm-up.")]
RoomRate = Annotated[int, Option(min=1, help="Messages per second offered to the room.")]
TalkRate = Annotated[int, Option(min=1, help="Messages per second, all members together.")]
