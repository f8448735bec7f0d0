"""The document against a real node, by a tool that knows neither: schemathesis calls every operation as the document
allows and as it forbids, and looks whether status, headers and bodies are the ones described."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.api.endpoint import OPERATIONS
from tests.api.calls import KEYS, SECRETS
from tests.support.node import ROOT, NodeServer

UNLIMITED: dict[str, Any] = {"api_requests_per_s": 1e6, "api_requests_burst": 10**6}
SEED = "20"


def schemathesis(node: NodeServer, folder: Path, *arguments: str) -> str:
    """Run all its checks; what it printed. AssertionError with that if it found something."""
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{node.http_url}/api/v1/openapi.json"),
        *("--header", f"Authorization: Bearer {SECRETS['ops']}", "--checks", "all", "--no-color", "--seed", SEED),
        *arguments,
    ]
    environ = os.environ | {"SCHEMATHESIS_HOOKS": "tests.api.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Tested: {len(OPERATIONS)}" in done.stdout, done.stdout
    return done.stdout


def cases(printed: str) -> int:
    found = re.search(r"(\d+) generated, \1 passed", printed)
    assert found, printed
    return int(found[1])


@pytest.mark.system
def test_every_operation_answers_what_the_document_says_whatever_it_is_asked(tmp_path: Path) -> None:
    with NodeServer(api_keys=KEYS, **UNLIMITED) as node:
        printed = schemathesis(node, tmp_path, "--phases", "examples,coverage,fuzzing", "--max-examples", "10")
        assert cases(printed) > 500


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thousands_of_requests_find_nothing_either(tmp_path: Path) -> None:
    with NodeServer(api_keys=KEYS, **UNLIMITED) as node:
        assert cases(schemathesis(node, tmp_path, "--max-examples", "200")) > 3000
