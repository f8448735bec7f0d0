"""The commands that documents name exist: the files, and tests for what ``-k`` says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from _pytest.mark.expression import Expression

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


class Named(NamedTuple):
    document: str
    path: str
    words: str
    """What ``-k`` selects; empty: everything."""


def named_in(text: str, document: str = "") -> Iterator[Named]:
    for code in re.findall(r"`([^`\n]+)`", text):
        words = re.search(r'-k ("[^"]+"|\S+)', code)
        for path in re.findall(r"(?<![\w./-])tests/[\w./*-]+", code):
            yield Named(document, path, words[1].strip('"') if words else "")


NAMED = sorted({named for path in DOCUMENTS for named in named_in(path.read_text(), path.name)})


def each_test(path: Path) -> Iterator[str]:
    """The name of each test, its file and its decorators, which hold the ids of its parameters."""
    text = path.read_text()
    for each in ast.walk(ast.parse(text)):
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_"):
            decorators = (ast.get_source_segment(text, decorator) or "" for decorator in each.decorator_list)
            yield "\n".join([path.name, each.name, *decorators]).lower()


def selected(words: str, test: str) -> bool:
    def is_in(word: str, /, **_: object) -> bool:
        return word.lower() in test

    return Expression.compile(words).evaluate(is_in)


def exists(named: Named) -> bool:
    files = list(ROOT.glob(named.path.rstrip("/")))
    if not named.words:
        return bool(files)
    modules = (module for path in files for module in (path.rglob("test_*.py") if path.is_dir() else [path]))
    return any(selected(named.words, test) for module in modules for test in each_test(module))


@pytest.mark.parametrize("named", NAMED, ids=[" ".join(named) for named in NAMED])
def test_what_a_document_names_is_there(named: Named) -> None:
    assert exists(named), f"{named.document} names tests that are not there: {named.path} -k {named.words!r}"


def test_many_are_named_and_what_is_not_there_is_noticed() -> None:
    assert len(NAMED) > 50
    assert list(named_in("`pytest tests/test_docs.py -k noticed`")) == [Named("", "tests/test_docs.py", "noticed")]
    for text in (
        "`tests/nowhere.py`",
        "`tests/nowhere*/`",
        '`pytest tests/test_docs.py -k "nothing_such or not_this_either"`',
    ):
        assert not any(exists(named) for named in named_in(text))
