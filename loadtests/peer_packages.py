"""Gets the peers' packages at first use, into the cache folder: a .venv from loadtests/peers/requirements.lock, and
what npm has from package-lock.json beside it. What Debian has, the user installs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.errors import SetupError
from loadtests.native import cache_folder
from loadtests.peer import Peer, Source

PEERS_FOLDER = Path(__file__).parent / "peers"
NPM_FILES = ("package.json", "package-lock.json", "socketio.mjs", "socketio_bridge.mjs", "ws.mjs")
NCHAN_MODULES = ("/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/share/nginx/modules/ngx_nchan_module.so")
INSTALL_S = 300.0


def words_of(source: Source, centrifugo: Path | None) -> dict[str, str]:
    """What commands of this source need filled in, once it is there. Raises :class:`SetupError` saying what to do."""
    words = {"here": sys.executable, "peers": str(PEERS_FOLDER)}
    if source == "python":
        words["python"] = str(_python())
    elif source == "npm":
        words["npm"] = str(_npm())
    elif source == "nchan":
        words |= _nchan()
    elif source == "centrifugo":
        words["centrifugo"] = str(_centrifugo(centrifugo))
    return words


def version_of(peer: Peer, words: dict[str, str]) -> str:
    """As installed, for the report."""
    if peer.source == "here":
        return importlib.metadata.version(peer.package)
    if peer.source == "python":
        return locked_version((PEERS_FOLDER / "requirements.lock").read_text(), peer.package)
    if peer.source == "npm":
        packages = json.loads((PEERS_FOLDER / "package-lock.json").read_text())["packages"]
        return str(packages[f"node_modules/{peer.package}"]["version"])
    if peer.source == "nchan":
        command = ["dpkg-query", "--show", "--showformat=${Version}", peer.package]
    else:
        command = [words["centrifugo"], "version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except OSError:
        return "?"
    return done.stdout.strip() or "?"


def locked_version(lock: str, package: str) -> str:
    """Which version a requirements file pins. Pure."""
    found = re.search(rf"^{re.escape(package)}(?:\[[^]]*\])?==(\S+)", lock, re.MULTILINE)
    return found[1] if found else "?"


def _python() -> Path:
    lock = PEERS_FOLDER / "requirements.lock"
    folder = cache_folder() / f"peers-python-{_fingerprint([lock], sys.version)}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], "the peers' Python packages")
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]
        _run([*pip, "--require-hashes", "-r", str(lock)], "the peers' Python packages")
        (folder / "complete").touch()
    return python


def _npm() -> Path:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise SetupError(f"{program} is not installed (Debian: apt-get install nodejs npm)")
    files = [PEERS_FOLDER / name for name in NPM_FILES]
    folder = cache_folder() / f"peers-npm-{_fingerprint(files, platform.machine())}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file in files:
            shutil.copy(file, folder / file.name)
        install = ["npm", "ci", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1"]
        _run(install, "the peers' packages of npm", folder)
        (folder / "complete").touch()
    return folder


def _nchan() -> dict[str, str]:
    nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    module = next((path for path in NCHAN_MODULES if Path(path).exists()), None)
    if nginx is None or module is None:
        raise SetupError("nginx or its module is not installed (Debian: apt-get install nginx libnginx-mod-nchan)")
    return {"nginx": nginx, "nchan_module": module}


def _centrifugo(path: Path | None) -> Path:
    if path is None:
        raise SetupError("give the path of its binary: --centrifugo PATH")
    if not path.is_file() or not os.access(path, os.X_OK):
        raise SetupError(f"{path} is no program that can be run")
    return path.resolve()


def _fingerprint(files: Sequence[Path], more: str) -> str:
    digest = hashlib.sha256(more.encode())
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: list[str], what: str, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_S,
        )
    except subprocess.TimeoutExpired:
        raise SetupError(f"{what} were not there after {INSTALL_S:.0f} s: is the registry reachable?") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise SetupError(f"{what} could not be installed; is the registry reachable? It said: {' '.join(said)}")
