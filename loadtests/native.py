"""The native programs (native/*.c), compiled by the system's compiler at first use."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadtests.errors import SetupError

SOURCES = Path(__file__).parent / "native"
PROGRAMS = ("client", "baseline", "publisher")
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra")


def cache_folder() -> Path:
    """Where compiled programs are kept, outside the checkout: the user's cache, else the temporary folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "roomcast-loadtests"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass  # a home that does not exist or cannot be written to
    folder = Path(tempfile.gettempdir()) / f"roomcast-loadtests-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise SetupError(f"{folder} belongs to somebody else: set XDG_CACHE_HOME to a folder of your own")
    return folder


def build(program: str, folder: Path | None = None, flags: Sequence[str] = FLAGS) -> Path:
    """Path of the compiled program. A change of any source, flag or machine type compiles it anew.

    Raises :class:`SetupError` without a compiler, or with what it said.
    """
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        raise SetupError("no C compiler: install one (Debian: apt-get install gcc libc6-dev), or name it in CC")
    fingerprint = hashlib.sha256(" ".join((platform.machine(), compiler, *flags)).encode())
    for source in sorted(SOURCES.iterdir()):
        fingerprint.update(source.name.encode() + b"\0" + source.read_bytes())
    target = (folder or cache_folder()) / f"{program}-{fingerprint.hexdigest()[:16]}"
    if target.exists():
        return target
    unfinished = target.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [compiler, *flags, "-o", unfinished, SOURCES / f"{program}.c"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SetupError(f"{compiler} could not compile loadtests/native/{program}.c:\n{done.stderr.strip()}")
    unfinished.replace(target)  # at once: two runs may start together
    return target
