"""How far a run is: a bar on a terminal, a line per finished step elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Tell = Callable[[str], None]
"""Shows what is being done right now."""


class Steps:
    """Made by :func:`steps`."""

    def __init__(self, progress: Progress, total: int, console: Console) -> None:
        self._progress = progress
        self._console = console
        self._task = progress.add_task("starting", total=total)

    @contextmanager
    def step(self, name: str) -> Iterator[Tell]:
        """One of the steps, from its beginning to its end."""

        def tell(what: str) -> None:
            self._progress.update(self._task, description=f"{name}: {what}")

        tell("starting")
        started_s = time.monotonic()
        yield tell
        self._progress.advance(self._task)
        if not self._console.is_terminal:
            self._console.print(f"{name} done in {time.monotonic() - started_s:.0f} s")


@contextmanager
def steps(total: int, console: Console) -> Iterator[Steps]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, refresh_per_second=2, transient=True) as progress:
        yield Steps(progress, total, console)
