"""A Docker engine of the test's own: its data, its socket, its cgroup, in a temporary directory; stopped by its pid.

Started inside ``tests.support.namespaces.private_network`` its bridges and packet rules are in that network alone and
go with it. Outside it gets no network of its own (``bridged=False``) and can build images only with the machine's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.waiting import eventually_sync

PROGRAMS = ("dockerd", "docker", "docker-compose", "debootstrap", "iptables", "ip")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
FREE_BYTES = 6 * 2**30
CGROUPS = Path("/sys/fs/cgroup")


def skip_unless_possible() -> None:
    """The one skip there is: says why a machine cannot run containers (scripts/test --slow installs the programs)."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        pytest.skip(f"no containers here: {', '.join(missing)} not installed (scripts/test --slow installs them)")
    if os.geteuid() != 0:
        pytest.skip("no containers here: a Docker engine of the test's own needs root")
    if shutil.disk_usage(tempfile.gettempdir()).free < FREE_BYTES:
        pytest.skip(f"no containers here: {tempfile.gettempdir()} needs {FREE_BYTES // 2**30} GiB free")


class Store:
    """Where engines keep images and containers, and the cgroup they use. Removed at the end."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rc-docker-", dir="/tmp"))

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for line in Path("/proc/mounts").read_text().splitlines():
            if (mounted := line.split()[1]).startswith(f"{self.directory}/"):  # the engine's hold on its own network
                run(["umount", mounted], dict(os.environ))
        shutil.rmtree(self.directory)
        for cgroup in sorted(CGROUPS.glob(f"**/{self.directory.name}"), reverse=True):
            with contextlib.suppress(OSError):
                cgroup.rmdir()


class Engine:
    """One ``dockerd``. A context manager; in the network namespace of the thread that enters it."""

    def __init__(self, store: Store, *, bridged: bool) -> None:
        self.directory = store.directory
        self.arguments = [
            *("--data-root", str(self.directory / "data"), "--exec-root", str(self.directory / "exec")),
            *("-p", str(self.directory / "pid"), "-H", self.host, "--cgroup-parent", f"/{self.directory.name}"),
            *(() if bridged else ("--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false")),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.directory}/socket"

    @property
    def environment(self) -> dict[str, str]:
        """For programs that talk to this engine."""
        return os.environ | {"PATH": PATH, "DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "0"}

    def __enter__(self) -> Engine:
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                ["dockerd", *self.arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )
        try:
            eventually_sync(self._answers, 60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"dockerd ended: {(self.directory / 'log').read_text()[-2000:]}")
        return subprocess.run(["docker", "version"], env=self.environment, capture_output=True).returncode == 0

    def __exit__(self, *exc_info: object) -> None:
        if self.process is not None:
            self.process.terminate()  # ends its containers and its containerd, too
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
            self.process = None

    def docker(self, *arguments: str, stdin: bytes | None = None, timeout_s: float = 60) -> str:
        """One command's output. AssertionError with what it said if it failed."""
        return run(["docker", *arguments], self.environment, stdin, timeout_s)


def run(command: list[str], environment: dict[str, str], stdin: bytes | None = None, timeout_s: float = 60) -> str:
    """A program's output. AssertionError with all it said if it failed."""
    result = subprocess.run(command, env=environment, input=stdin, capture_output=True, timeout=timeout_s)
    output = result.stdout.decode(errors="replace")
    assert result.returncode == 0, f"{command}: {(output + result.stderr.decode(errors='replace'))[-4000:]}"
    return output
