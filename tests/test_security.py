"""SECURITY.md names a test for every promise: they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[^`]+)`", TEXT)))
ROWS = [line for line in TEXT.partition("## What holds")[2].splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("node_id", NAMED)
def test_the_test_exists(node_id: str) -> None:
    path, _, name = node_id.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    if name:
        defined = {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in defined, f"{path} has no {name}: name the test that holds the promise now"


def test_every_promise_names_one() -> None:
    rows = [row for row in ROWS if not row.startswith("| promise")]
    assert len(rows) > 40
    for row in rows:
        assert "`tests/" in row, row


@pytest.mark.parametrize("text", ["`tests/test_security.py::test_nothing`", "`tests/nowhere.py::test_x`"])
def test_the_check_sees_what_is_not_there(text: str) -> None:
    [node_id] = re.findall(r"`(tests/[^`]+)`", text)
    with pytest.raises((AssertionError, OSError)):
        test_the_test_exists(node_id)
