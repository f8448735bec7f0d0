"""``roomcast serve --dev --app …``: the node runs in a child, which is started again when a source file changes.

Ctrl-C reaches both; the child drains, the parent waits for it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
LOOK_S: Final = 0.3
STOP_S: Final = 5.0
CHILD: Final = "_ROOMCAST_RELOADED"
WATCHED: Final = (".py", ".yaml", ".yml")
SKIPPED: Final = {"node_modules", "__pycache__", "venv", "build", "dist"}


def is_child() -> bool:
    return CHILD in os.environ


def keep_fresh() -> int:
    """Run this very command in a child, again after every change below the working folder. Returns its exit code when
    it ends because of Ctrl-C or SIGTERM; a child that fails waits for the next change."""
    command = [sys.executable, "-m", "server", *sys.argv[1:]]
    stopping = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    while True:
        seen = snapshot(Path.cwd())
        child = subprocess.Popen(command, env={**os.environ, CHILD: "1"}, preexec_fn=end_with_parent)
        told = False
        while not stopping and snapshot(Path.cwd()) == seen:
            if not told and child.poll() is not None:
                told = True
                print("roomcast: waiting for a file to change (Ctrl-C ends)", file=sys.stderr)
            time.sleep(LOOK_S)
        code = _end(child)
        if stopping:
            return code
        print("roomcast: a file has changed, starting again", file=sys.stderr)


def end_with_parent() -> None:
    """In the child: a SIGTERM when the parent is gone, however it went (Linux, prctl(2)); no node is left behind."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(child: subprocess.Popen[bytes]) -> int:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait()


def snapshot(folder: Path) -> Mapping[str, float]:
    """When each source file below the folder was changed."""
    return dict(_times(folder))


def _times(folder: Path) -> Iterable[tuple[str, float]]:
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in SKIPPED and not name.startswith(".")]
        for name in files:
            if name.endswith(WATCHED):
                path = os.path.join(root, name)
                try:
                    yield path, os.stat(path).st_mtime
                except OSError:
                    continue  # gone meanwhile
