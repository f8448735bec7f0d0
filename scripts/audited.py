"""Reads what pip-audit said about a lock file: ``audited.py <lock file> <its JSON>``. Exit codes: scripts/audit."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path


def verdict(locked: set[str], answer: str) -> tuple[int, list[str]]:
    """The exit code, and what to tell. Whatever was not answered for every package counts as not answered."""
    try:
        found = {each["name"]: each for each in json.loads(answer)["dependencies"]}
    except (ValueError, KeyError, TypeError):
        return 2, ["pip-audit could not ask: is there a network? Nothing is known about these packages now."]
    bad = [
        f"{each['name']} {each['version']}: {vulnerability['id']}, mended in {', '.join(vulnerability['fix_versions'])}"
        for each in found.values()
        for vulnerability in each.get("vulns", ())
    ]
    unknown = sorted(locked - {name for name, each in found.items() if "skip_reason" not in each})
    if bad:
        return 1, bad
    if unknown:
        return 2, [f"{len(unknown)} of {len(locked)} packages could not be asked about, as {unknown[0]}: no network?"]
    return 0, [f"{len(locked)} packages, no known vulnerability"]


def locked_in(text: str) -> set[str]:
    """The names that a lock file pins."""
    return {name.lower() for name in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)}


def main(lock: str, answer: str) -> int:
    code, told = verdict(locked_in(Path(lock).read_text()), Path(answer).read_text())
    for line in told:
        print(f"{lock}: {line}", file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
