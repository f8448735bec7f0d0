"""The figures that the compose test took, as a table at the end of the run."""

from __future__ import annotations

import pytest

from tests.support.figures import table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = table()
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)
