"""Every feature of the five reference documents has a test that names it, and a line in docs/handlers.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.features import ALL_IDS, covers, table

ROOT = Path(__file__).resolve().parents[1]


def test_there_are_104_features() -> None:
    assert len(ALL_IDS) == 104


@pytest.mark.parametrize("id", ALL_IDS)
def test_every_feature_has_a_test(id: str) -> None:
    assert table()[id], f"no test says @covers({id!r})"


@pytest.mark.parametrize("id", ALL_IDS)
def test_every_feature_has_a_line_in_the_documentation(id: str) -> None:
    assert re.search(rf"^\| {id} \| .+ \|$", (ROOT / "docs/handlers.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_a_name_that_is_no_feature_is_refused() -> None:
    with pytest.raises(AssertionError, match="Z1"):
        covers("Z1")


def test_the_script_fails_on_a_feature_without_a_test(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text('@covers("A1")\nasync def test_a(): ...\n\n@covers("B2")\ndef helper(): ...\n')
    found = table(tmp_path)
    assert found["A1"] == [f"{tmp_path.name}/test_x.py::test_a"] and found["B2"] == []
    run = subprocess.run([sys.executable, "-m", "tests.support.features"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and "104 of 104 features have a test." in run.stdout
