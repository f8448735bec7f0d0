"""What ``roomcast check`` found. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Status = Literal["ok", "warning", "failed", "skipped"]
NEEDS: Final = "needs: "
"""How the detail of a check begins that was not tried because another one failed."""


@dataclass(frozen=True)
class Finding:
    """Of one check. ``advice`` says what to change where it failed, and what to consider where it warns."""

    status: Status
    detail: str
    advice: str = ""


@dataclass(frozen=True)
class Line:
    """A finding with the name of its check and the time it took."""

    name: str
    finding: Finding
    seconds: float

    def as_json(self) -> dict[str, Any]:
        found = self.finding
        fields = {"name": self.name, "status": found.status, "detail": found.detail, "seconds": round(self.seconds, 3)}
        return {**fields, "advice": found.advice} if found.advice else fields


class Trouble(Exception):
    """A check failed. ``advice``: what to change."""

    def __init__(self, detail: str, advice: str = "") -> None:
        super().__init__(detail)
        self.finding = Finding("failed", detail, advice)


def is_good(lines: Sequence[Line]) -> bool:
    """Nothing failed; warnings are no failures."""
    return all(line.finding.status != "failed" for line in lines)
