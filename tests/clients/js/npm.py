"""The npm packages the JavaScript tests use (those of clients/js/package-lock.json), and node run with them."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "clients" / "js"
SOURCE = ROOT / "server" / "static" / "roomcast.js"


def install() -> None:
    """``npm ci``, unless what is there is what the lock file says."""
    stamp = CLIENT / "node_modules" / ".locked"
    want = str(zlib.crc32((CLIENT / "package-lock.json").read_bytes()))
    if not stamp.exists() or stamp.read_text() != want:
        run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", timeout_s=120)
        stamp.write_text(want)


def run(*command: str, timeout_s: float = 60) -> str:
    """What the command printed. AssertionError with all of it if it fails; it is stopped after ``timeout_s``."""
    done = subprocess.run(
        command,
        cwd=CLIENT,
        env=os.environ | {"TEST_PYTHON": sys.executable, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-8000:]}"
    return done.stdout


def run_tests(path: Path, timeout_s: float = 60) -> str:
    """One file of tests under node's own runner; its report is the error if one fails."""
    return run("node", "--test", "--test-reporter=spec", str(path), timeout_s=timeout_s)
