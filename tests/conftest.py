"""How tests run here: ``async def`` tests without a plugin, and the servers that tests share."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable, Generator, Iterator
from typing import Any, cast

import pytest

from tests.support import busy
from tests.support.figures import table
from tests.support.redis_server import RedisServer


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """An ``async def test_…`` runs in an event loop of its own (``loop_factory`` if the test has such a fixture).

    What nobody awaited still counts: a task or future whose exception was never looked at fails the test.
    """
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    unhandled: list[dict[str, Any]] = []
    loop_factory = cast("Callable[[], asyncio.AbstractEventLoop] | None", pyfuncitem.funcargs.get("loop_factory"))
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.get_loop().set_exception_handler(lambda _loop, context: unhandled.append(context))
        runner.run(pyfuncitem.obj(**arguments))
    if unhandled:
        error = unhandled[0].get("exception")
        raise AssertionError(f"the event loop reported: {unhandled[0].get('message')} {error!r}") from error
    return True


def pytest_runtest_call() -> None:
    busy.begin()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Reports travel between processes as UTF-8; what hostile tests log is not always that."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for ``redis_server`` needs a redis-server: it gets the marker ``redis`` by itself."""
    for item in items:
        if "redis_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.redis)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures that tests took, as a table at the end of the run."""
    if lines := table():
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for all tests that do it no harm; tests keep apart by ``prefix``."""
    with RedisServer() as server:
        yield server


_prefixes = itertools.count(1)


@pytest.fixture
def prefix() -> str:
    """A key prefix no other test uses."""
    return f"t{next(_prefixes)}"
