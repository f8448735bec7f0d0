"""Scenarios become commands: every one has its sizes, and the same outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from rich.console import Console
from typer import Option
from typer.testing import CliRunner

from loadtests.cli import app
from loadtests.command import alone
from loadtests.errors import SetupError
from loadtests.result import Column, Result, Sample

NO_SCENARIO = {"bench", "guard", "model", "peers"}
"""Commands that sum up others, or compare with a recorded figure."""


@dataclass(frozen=True)
class Tea:
    """How fast tea is poured."""

    cups: Annotated[int, Option(min=1, help="At once.")] = 3
    duration_s: Annotated[float, Option("--seconds")] = 2.0


def pour(tea: Tea, console: Console) -> Result:
    if tea.cups == 99:
        raise SetupError("no kettle: buy one")
    figures = {"poured": tea.cups * tea.duration_s, "lost": float(tea.cups == 13)}
    return Result("tea", {"cups": tea.cups}, (Column("poured", "poured"),), [], [Sample("pot", figures)])


def run(*words: str) -> tuple[int, str]:
    tea = typer.Typer()
    alone(tea, "tea", Tea, pour)
    result = CliRunner().invoke(tea, words)
    return result.exit_code, result.output


def test_fields_are_options_and_the_docstring_is_the_help() -> None:
    code, text = run("--help")
    assert code == 0
    for words in ("How fast tea is poured.", "--cups", "--seconds", "At once.", "--json", "--report"):
        assert words in text
    assert "12" in run("--cups", "4", "--seconds", "3")[1]


@pytest.mark.parametrize(
    ("cups", "code", "told"),
    [("4", 0, "8"), ("13", 1, "fault: sample 1 (pot): 1 lost"), ("99", 2, "no kettle"), ("0", 2, "cups")],
)
def test_exit_codes(cups: str, code: int, told: str) -> None:
    found, text = run("--cups", cups)
    assert found == code and told in text


COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - NO_SCENARIO))
def test_every_scenario_writes_a_report(name: str) -> None:
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {"--json", "--report"} <= options
    assert COMMANDS[name].help
