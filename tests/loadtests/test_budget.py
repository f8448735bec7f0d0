"""When a path is over its budget, and what is said of it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from loadtests import guard
from loadtests.budget import MARGIN, Line, compare
from loadtests.guard import BUDGET, judge
from loadtests.lockstep import PATHS
from tests.loadtests import slowed_node

MINUTES = pytest.mark.timeout(300)


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("measured", "over", "under"),
    [(100.0, False, False), (114.9, False, False), (115.1, True, False), (85.1, False, False), (84.9, False, True)],
)
def test_a_path_is_over_its_budget_above_the_margin(measured: float, over: bool, under: bool) -> None:
    assert MARGIN == 0.15
    [line] = compare({"chat": measured}, {"chat": 100.0, "gone": 1.0})
    assert (line.over, line.under) == (over, under)


def test_a_new_path_has_no_budget_and_is_not_over_it() -> None:
    assert compare({"new": 5.0}, {}) == [Line("new", 5.0, None)]
    assert not Line("new", 5.0, None).over


def test_only_instructions_decide() -> None:
    dearer, cheaper = Line("chat", 120.0, 100.0), Line("ping", 50.0, 100.0)
    out = console()
    assert not judge([dearer, cheaper], "instructions", out)
    assert "chat costs more" in said(out) and "ping has become cheaper" in said(out)
    assert judge([cheaper], "instructions", console())
    out = console()
    assert judge([dearer], "cpu", out) and "decides nothing" in said(out)


def test_every_path_has_a_budget() -> None:
    budget = json.loads(BUDGET.read_text())
    assert list(budget["instructions"]) == [path.name for path in PATHS]


@pytest.mark.redis
@MINUTES
def test_all_paths_can_be_gone(tmp_path: Path) -> None:
    few = [replace(path, n=50 if path.name == "burst" else 1, rooms=1) for path in PATHS]
    budget = tmp_path / "budget.json"
    assert guard.run(console(), record=True, valgrind=False, budget=budget, paths=few)
    recorded = json.loads(budget.read_text())["cpu"]
    assert recorded.keys() == {path.name for path in PATHS} and all(turns > 0 for turns in recorded.values())
    out = console()
    assert guard.run(out, valgrind=False, budget=budget, paths=few[:1])
    assert "request without Redis" in said(out)


@pytest.mark.slow
@MINUTES
def test_a_path_that_became_slower_is_noticed_and_one_that_did_not_is_not(tmp_path: Path) -> None:
    ping, budget = PATHS[:1], tmp_path / "budget.json"
    assert guard.run(console(), record=True, budget=budget, paths=ping)
    out = console()
    assert guard.run(out, budget=budget, paths=ping), said(out)
    out = console()
    assert not guard.run(out, node=slowed_node.COMMAND, budget=budget, paths=ping)
    assert "ping costs more than its budget" in said(out)
