"""What no source file of the packages may contain, read with ``ast``: ways for data to become code, and comparisons of
secrets that tell by their time how much was right."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("broker", "server", "clients/python", "loadtests", "examples", "scripts")
SOURCES = [*(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))), ROOT / "roomcast.py"]
MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "code", "codeop"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen", "subprocess.getoutput"}
SECRETS = re.compile(r"(^|_)(secret|password|digest|mac|signature|api_key)s?$")


def faults(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"import {alias.name}" for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(f"from {node.module}")
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            shell = any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in node.keywords)
            if name in CALLS | METHODS or shell:
                found.append(name)
        elif isinstance(node, ast.Compare) and any(isinstance(each, (ast.Eq, ast.NotEq)) for each in node.ops):
            sides = [each for each in (node.left, *node.comparators)]
            names = [
                ast.unparse(each).rpartition(".")[2] for each in sides if isinstance(each, (ast.Name, ast.Attribute))
            ]
            if any(SECRETS.search(name) for name in names) and not any(isinstance(s, ast.Constant) for s in sides):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import xml, marshal",
        "from pickle import loads",
        "eval('1')",
        "exec(text)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "import os\nos.system(text)",
        "if given == self._secret: pass",
        "ok = known.digest != digest",
    ],
)
def test_the_check_sees_it(source: str) -> None:
    assert len(faults(source)) == 1


@pytest.mark.parametrize(
    "source", ["import yaml\nyaml.safe_load(text)", "re.compile('a')", "hmac.compare_digest(a, b)", "secret == ''"]
)
def test_the_check_leaves_good_code_alone(source: str) -> None:
    assert faults(source) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_data_becomes_code_and_no_secret_is_compared_by_its_characters(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


def test_secrets_are_compared_in_constant_time_where_they_are_compared() -> None:
    for name in ("server/api/keys.py", "server/ticket.py"):
        assert "hmac.compare_digest(" in (ROOT / name).read_text(encoding="utf-8"), name


def test_no_pattern_of_a_user_reaches_redis() -> None:
    """A pattern subscription hears every room, and costs Redis a comparison for every message of every room."""
    for path in SOURCES:
        if path.is_relative_to(ROOT / "broker"):
            text = path.read_text(encoding="utf-8").upper()
            assert "PSUBSCRIBE" not in text and "PUNSUBSCRIBE" not in text, path
