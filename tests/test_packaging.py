"""What a user gets who installs Roomcast: everything it reads at run time is in the wheel."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("broker", "loadtests", "server")

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A plain install outside the checkout: the wheel, unpacked where only ``PYTHONPATH`` finds it."""
    directory = tmp_path_factory.mktemp("install")
    _run(directory, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory / "wheels"), cwd=ROOT)
    (wheel,) = (directory / "wheels").glob("roomcast-*.whl")
    target = directory / "site"
    _run(directory, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    yield target


def _run(
    directory: Path, *arguments: str, cwd: Path | None = None, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("ROOMCAST_", "PYTHON"))}
    if path is not None:
        environ["PYTHONPATH"] = str(path)
    result = subprocess.run(
        [sys.executable, *arguments], cwd=cwd or directory, env=environ, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def tracked(pattern: str) -> set[str]:
    """Files of the packages as they stand in the checkout."""
    return {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_file_of_the_packages_is_installed_and_nothing_else(installed: Path) -> None:
    found = {
        str(path.relative_to(installed))
        for package in PACKAGES
        for path in (installed / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert found == tracked("*")
    assert tracked("*.lua") and {name for name in found if name.startswith("server/static/")}
    top = {path.name for path in installed.iterdir()} - {"bin", "__pycache__"}
    assert {name for name in top if not name.endswith(".dist-info")} == {*PACKAGES, "roomcast.py"}


def test_lua_and_static_files_are_served_from_there(installed: Path, tmp_path: Path) -> None:
    program = """
import asyncio, pathlib, sys
import broker, server
from importlib.resources import files
from starlette.testclient import TestClient
from broker.redis.scripts import load_script
from server.app import create_app
from server.endpoints import without_comments
from server.settings import Settings
from server.status import ASSETS

site = pathlib.Path(sys.argv[1])
assert pathlib.Path(server.__file__).is_relative_to(site), server.__file__
assert pathlib.Path(broker.__file__).is_relative_to(site), broker.__file__
for name in files("broker.redis").joinpath("lua").iterdir():
    assert load_script(name.name.removesuffix(".lua")), name
paths = {name: path for path, name, _ in ASSETS} | {"demo.html": "/demo"}
with TestClient(create_app(Settings.model_validate({"dev": True, "api_keys": "k:read:" + 32 * "x"}))) as client:
    for name in files("server").joinpath("static").iterdir():
        if name.name == "package.json":
            continue  # tells Node that the others are modules
        path = paths.get(name.name, "/" + name.name)
        source = name.read_bytes()
        assert client.get(path).content == (without_comments(source) if path == "/roomcast.js" else source), path
    assert client.get("/readyz").status_code == 200
print("served")
"""
    assert _run(tmp_path, "-W", "ignore", "-c", program, str(installed), path=installed).stdout == "served\n"


def test_the_command_is_installed_and_knows_its_version(installed: Path, tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    program = "from server.version import VERSION; print(VERSION)"
    assert _run(tmp_path, "-c", program, path=installed).stdout.strip() == version
    script = (installed / "bin" / "roomcast").read_text()
    assert re.search(r"from server\.cli import main", script)
    assert "Run one node" in _run(tmp_path, "-m", "server", "--help", path=installed).stdout


def test_the_licence_goes_with_it(installed: Path) -> None:
    (wheel,) = (installed.parent / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in metadata


LOCKS = ["requirements.lock", "requirements-build.lock", "requirements-dev.lock", "loadtests/peers/requirements.lock"]


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_pins_everything_by_hash_and_names_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    requirements = re.findall(r"(?m)^([A-Za-z0-9._-]+)==\S+(?:.*?)\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", text)
    assert len(requirements) == len(re.findall(r"(?m)^[A-Za-z0-9]", text))
    assert len(requirements) > 5


def test_the_lock_of_the_peers_from_npm_pins_everything_by_hash_and_names_no_registry() -> None:
    packages = json.loads((ROOT / "loadtests" / "peers" / "package-lock.json").read_text())["packages"]
    wanted = json.loads((ROOT / "loadtests" / "peers" / "package.json").read_text())["dependencies"]
    assert packages.pop("")["dependencies"] == wanted
    assert len(packages) > len(wanted)
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-") and "resolved" not in package, name


def test_the_lock_satisfies_the_project() -> None:
    """Every dependency of pyproject.toml is in the lock, in a version its range allows."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = configuration["project"]
    for name, texts in (
        ("requirements.lock", project["dependencies"]),
        ("requirements-dev.lock", project["dependencies"] + project["optional-dependencies"]["dev"]),
        ("loadtests/peers/requirements.lock", configuration["dependency-groups"]["peers"]),
    ):
        pinned = dict(re.findall(r"(?m)^([A-Za-z0-9._-]+)==([^\s;]+)", (ROOT / name).read_text()))
        for text in texts:
            wanted = Requirement(text)
            assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), (name, text)
