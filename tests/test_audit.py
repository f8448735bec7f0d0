"""What scripts/audit makes of pip-audit's answer: silence about a package is never taken for good news."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from scripts.audited import locked_in, verdict

LOCKED = {"a", "b"}
GOOD: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}
OTHER: dict[str, Any] = {"name": "b", "version": "2", "vulns": []}
BAD: dict[str, Any] = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNASKED: dict[str, Any] = {"name": "b", "skip_reason": "not found"}


def answered(*dependencies: dict[str, Any]) -> tuple[int, list[str]]:
    return verdict(LOCKED, json.dumps({"dependencies": dependencies, "fixes": []}))


def test_nothing_known_is_good() -> None:
    assert answered(GOOD, OTHER) == (0, ["2 packages, no known vulnerability"])


def test_a_vulnerability_is_named_with_what_mends_it() -> None:
    assert answered(GOOD, BAD) == (1, ["b 2: CVE-1, mended in 3"])


def test_what_was_not_answered_is_not_good() -> None:
    for dependencies in ((GOOD, UNASKED), (GOOD,), ()):
        code, [told] = answered(*dependencies)
        assert code == 2 and "could not be asked" in told


def test_no_answer_at_all_says_so() -> None:
    for text in ("", "Traceback", "[]", '{"x": 1}'):
        code, [told] = verdict(LOCKED, text)
        assert code == 2 and "network" in told


def test_the_names_in_a_lock_file() -> None:
    assert locked_in("# by hand\nPyJWT==2.15.0 \\\n    --hash=sha256:x\nattrs==1 ; python_version > '3'\n") == {
        "pyjwt",
        "attrs",
    }


def test_every_lock_file_is_asked_about() -> None:
    root = Path(__file__).parent.parent
    there = [*root.glob("requirements*.lock"), *root.glob("[a-z]*/**/requirements*.lock")]
    asked = re.search("for lock in (.*);", (root / "scripts" / "audit").read_text())
    assert asked is not None and set(asked[1].split()) == {str(path.relative_to(root)) for path in there}
