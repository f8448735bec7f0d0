"""The public module: what it exports, and what it says when an application's own module stands in the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import roomcast

ROOT = Path(__file__).resolve().parents[1]


def test_everything_it_exports_is_there_and_has_a_docstring_or_a_value() -> None:
    assert roomcast.__all__ == sorted(roomcast.__all__)
    for name in roomcast.__all__:
        assert getattr(roomcast, name) is not None


@pytest.mark.parametrize("name", ["server", "broker"])
@pytest.mark.parametrize("form", ["module", "package"])
def test_a_namesake_is_named(name: str, form: str, tmp_path: Path) -> None:
    if form == "module":
        (tmp_path / f"{name}.py").write_text("mine = True\n")
    else:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("mine = True\n")
    program = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import roomcast"
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode == 1 and last.startswith("ImportError") and str(tmp_path) in last and "rename" in last
