"""What a user gets who installs the Python client: the wheel, with its types, runs the README's example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.node import NodeServer

CLIENT = Path(__file__).resolve().parents[3] / "clients" / "python"
DOCUMENTED = "ws://localhost:8000/ws"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("client")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory], cwd=CLIENT, check=True)
    (wheel,) = directory.glob("roomcast_client-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory / "site")
    yield directory / "site"


def test_every_file_is_in_it_the_mark_of_its_types_too(installed: Path) -> None:
    package = "roomcast_client"
    files = {path.name for path in (installed / package).iterdir()}
    assert files == {path.name for path in (CLIENT / package).iterdir() if path.name != "__pycache__"}
    assert "py.typed" in files


@pytest.mark.system
def test_the_readmes_example_says_hello_and_hears_it(installed: Path) -> None:
    found = re.search(r"```python\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)
    assert found is not None and found[1].count(DOCUMENTED) == 1
    with NodeServer() as node:
        source = found[1].replace(DOCUMENTED, f"ws://localhost:{node.port}/ws")
        environ = {**os.environ, "PYTHONPATH": str(installed), "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(
            [sys.executable, "-c", source], env=environ, stdout=subprocess.PIPE, text=True
        ) as program:
            assert program.stdout is not None
            try:
                assert program.stdout.readline() == "in the log at 1\n"
                assert program.stdout.readline() == "1 alice {'text': 'hello'}\n"
            finally:
                program.kill()
