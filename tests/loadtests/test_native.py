from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.errors import SetupError
from loadtests.native import FLAGS, PROGRAMS, build


@pytest.mark.parametrize("program", PROGRAMS)
def test_compiles_without_a_warning(program: str, tmp_path: Path) -> None:
    assert build(program, tmp_path, (*FLAGS, "-Wconversion", "-Wshadow", "-Werror")).exists()


def test_a_program_is_compiled_once(tmp_path: Path) -> None:
    first = build("publisher", tmp_path)
    made_ns = first.stat().st_mtime_ns
    assert build("publisher", tmp_path) == first
    assert first.stat().st_mtime_ns == made_ns
    assert build("publisher", tmp_path, (*FLAGS, "-g")) != first


def test_a_missing_compiler_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="no C compiler: install one"):
        build("client", tmp_path)


def test_what_the_compiler_says_is_shown(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no-such-option"):
        build("client", tmp_path, ("-fno-such-option",))
