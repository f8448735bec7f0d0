"""Who may import whom among the client's modules. Read from the source; nothing is imported for it."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[3] / "clients" / "python" / "roomcast_client"
TREES = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.glob("*.py"))}
PURE = [name for name, tree in TREES.items() if "Pure" in (ast.get_docstring(tree) or "")]
PURE_MAY_USE = {"__future__", "bisect", "collections.abc", "dataclasses", "itertools", "json", "typing"}
MAX_LINES = 300


def imports(name: str) -> set[str]:
    """Modules, ours without the name of the package."""
    found: set[str] = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, f"{name}: write imports in full"
            found.add(node.module.removeprefix("roomcast_client."))
    return found


def test_no_module_needs_itself_also_for_types() -> None:
    TopologicalSorter({name: imports(name) & TREES.keys() for name in TREES}).prepare()


@pytest.mark.parametrize("name", PURE)
def test_what_says_that_it_is_pure_has_no_clock_no_socket_and_no_chance(name: str) -> None:
    assert imports(name) <= PURE_MAY_USE | set(PURE), name


def test_what_decides_is_pure() -> None:
    assert {"connection", "machine", "membership", "outbox", "requests", "room_log", "rooms"} <= set(PURE)


def test_files_are_short_enough_to_be_read() -> None:
    long = {path.name for path in PACKAGE.glob("*.py") if len(path.read_text().splitlines()) > MAX_LINES}
    assert not long
