"""The JavaScript client: its own tests under node, its types, its size and its package."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from server.endpoints import without_comments
from tests.clients.js import npm
from tests.support.node import NodeServer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

HERE = Path(__file__).parent
MAX_GZIPPED_BYTES = 6_000


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    npm.install()


@pytest.mark.parametrize("name", ["machine", "properties", "client"])
def test_under_node(name: str) -> None:
    report = npm.run_tests(HERE / f"{name}.test.mjs")
    assert "ℹ fail 0" in report and "ℹ pass 0" not in report, report


def test_what_the_node_serves_is_small_and_still_the_program(tmp_path: Path) -> None:
    source = npm.SOURCE.read_bytes()
    served = without_comments(source)
    assert len(gzip.compress(served, 9)) <= MAX_GZIPPED_BYTES
    # The same program: without comments and white space nothing differs.
    script = tmp_path / "same.mjs"
    script.write_text(
        "import { createRequire } from 'node:module';\n"
        f"const ts = createRequire({json.dumps(str(npm.CLIENT / 'package.json'))})('typescript');\n"
        "import { readFileSync } from 'node:fs';\n"
        "const bare = (path) => ts.transpileModule(readFileSync(path, 'utf8'),\n"
        "  { compilerOptions: { target: 'es2022', removeComments: true } }).outputText.replace(/\\s+/g, ' ');\n"
        "process.exit(bare(process.argv[2]) === bare(process.argv[3]) ? 0 : 1);\n"
    )
    (tmp_path / "served.js").write_bytes(served)
    npm.run("node", str(script), str(npm.SOURCE), str(tmp_path / "served.js"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program's folder in which the packed client is installed, and `ws`."""
    folder = tmp_path_factory.mktemp("project")
    npm.run("npm", "pack", "--pack-destination", str(folder))
    [archive] = folder.glob("*.tgz")
    modules = folder / "node_modules"
    with tarfile.open(archive) as packed:
        packed.extractall(modules, filter="data")
    (modules / "package").rename(modules / "roomcast")
    (modules / "ws").symlink_to(npm.CLIENT / "node_modules" / "ws")
    return folder


def test_the_package_holds_the_client_its_types_and_no_dependency(project: Path) -> None:
    names = {path.name for path in (project / "node_modules" / "roomcast").iterdir()}
    assert {"package.json", "LICENSE", "roomcast.js", "roomcast.d.ts", "README.md"} == names
    assert "dependencies" not in json.loads((npm.CLIENT / "package.json").read_text())


@pytest.mark.parametrize("resolution", ["bundler", "nodenext"])
def test_the_types_say_what_may_be_done_and_what_not(resolution: str, project: Path) -> None:
    (project / "usage.mts").write_text((HERE / "usage.ts").read_text())
    settings = {
        "compilerOptions": {
            "strict": True,
            "noEmit": True,
            "target": "es2022",
            "module": "esnext" if resolution == "bundler" else resolution,
            "moduleResolution": resolution,
            "lib": ["es2022", "dom"],
            "types": [],
        },
        "files": ["usage.mts"],
    }
    (project / "tsconfig.json").write_text(json.dumps(settings))
    npm.run(str(npm.CLIENT / "node_modules" / ".bin" / "tsc"), "-p", str(project))


def test_a_program_with_the_package_talks_to_a_node(project: Path) -> None:
    (project / "program.mjs").write_text(
        "import { roomcast } from 'roomcast';\n"
        "import WebSocket from 'ws';\n"
        "const rc = roomcast(process.argv[2], { WebSocket });\n"
        "const room = rc.join('lobby', { history: 50 });\n"
        "const heard = new Promise((resolve) => room.on('message', ({ user_id, data }) => resolve([user_id, data])));\n"
        "const position = await room.send({ text: 'hello' });\n"
        "console.log(JSON.stringify([Object.keys(position), position.offset, await heard]));\n"
        "rc.close();\n"
    )
    with NodeServer() as node:
        said = npm.run("node", str(project / "program.mjs"), f"ws://localhost:{node.port}/ws?user=nora")
    assert json.loads(said) == [["epoch", "offset", "tag"], 1, ["nora", {"text": "hello"}]]


def test_the_lock_file_names_no_host() -> None:
    assert "://" not in (npm.CLIENT / "package-lock.json").read_text()


def test_a_node_that_is_too_old_is_said_before_anything_fails(tmp_path: Path) -> None:
    old = tmp_path / "node"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo v16.20.2\nexit 1\n')
    old.chmod(0o755)
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([npm.ROOT / "scripts" / "setup"], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "need Node 18 or newer, this is v16.20.2" in done.stderr, done
