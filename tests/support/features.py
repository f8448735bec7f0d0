"""Which of the reference documents' features which test covers. ``scripts/features`` prints the table."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

TESTS: Final = Path(__file__).resolve().parents[1]
FEATURES: Final = {"N": 16, "X": 15, "A": 39, "B": 24, "G": 10}
"""How many features each document has: Nori, Nexios, Asok, Bocadillo, Gramex."""
ALL_IDS: Final = [f"{letter}{number}" for letter, count in FEATURES.items() for number in range(1, count + 1)]


def covers(*ids: str) -> Callable[[F], F]:
    """Says so where people and ``scripts/features`` read it; changes nothing about the test."""
    assert ids and set(ids) <= set(ALL_IDS), f"no such features: {set(ids) - set(ALL_IDS)}"
    return lambda test: test


@cache
def table(folder: Path = TESTS) -> dict[str, list[str]]:
    """Id -> ``file::test`` for every ``@covers(…)`` on a test, read from the source."""
    found: dict[str, list[str]] = {id: [] for id in ALL_IDS}
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                for id in _ids_of(node):
                    found.setdefault(id, []).append(f"{path.relative_to(folder.parent)}::{node.name}")
    return found


def _ids_of(test: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [
        str(argument.value)
        for decorator in test.decorator_list
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "covers"
        for argument in decorator.args
        if isinstance(argument, ast.Constant)
    ]


def main() -> int:
    """Print the table; 1 if a feature has no test."""
    covered = table()
    for id, tests in covered.items():
        print(f"{id:4} {tests[0] if tests else 'NO TEST'}")
        for test in tests[1:]:
            print(f"     {test}")
    missing = [id for id, tests in covered.items() if not tests]
    print(f"\n{len(covered) - len(missing)} of {len(covered)} features have a test.", *missing)
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
