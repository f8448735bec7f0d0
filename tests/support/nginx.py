"""A real nginx for tests, with the configuration that deploy/ mounts: only the ports and the list of nodes are ours."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.node import lasting_port
from tests.support.waiting import eventually_sync

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "nginx"
VERBATIM = ("nginx.conf", "roomcast.conf", "proxy.conf", "limits.conf")
PATH = os.environ.get("PATH", "") + ":/usr/sbin"  # where Debian keeps it


class NginxServer:
    """One nginx before the nodes at these loopback ports. A context manager; stopped by its pid.

    ``upstream`` and ``listen`` are texts for upstream.conf and listen.conf in the place of the static list and a plain
    port; ``changes`` are words of the files that are to be others, ``more`` are further files of deploy/nginx.
    """

    def __init__(
        self,
        node_ports: Sequence[int],
        *,
        upstream: str | None = None,
        listen: str | None = None,
        changes: Mapping[str, str] | None = None,
        more: Sequence[str] = (),
    ) -> None:
        self.port = lasting_port()
        self.directory = Path(tempfile.mkdtemp(prefix="rc-nginx-", dir="/tmp"))
        self.directory.chmod(0o755)  # its workers are not root
        for name in (*VERBATIM, *more):
            shutil.copy(CONFIGURATION / name, self.directory / name)
        (self.directory / "listen.conf").write_text(listen or f"listen 127.0.0.1:{self.port};\n")
        (self.directory / "upstream.conf").write_text(upstream or static_upstream(node_ports))
        for old, new in (changes or {}).items():
            self.change(old, new)
        self.process: subprocess.Popen[bytes] | None = None

    def change(self, old: str, new: str) -> None:
        """In whichever file has it; ``reload`` makes it hold. AssertionError where none has it."""
        having = [path for path in self.directory.glob("*.conf") if old in path.read_text()]
        assert having, f"deploy/nginx has no {old!r}"
        for path in having:
            path.write_text(path.read_text().replace(old, new))

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def log(self) -> str:
        """The access log and what nginx complained of."""
        return (self.directory / "log").read_text(errors="replace")

    def command(self, *arguments: str) -> list[str]:
        prefix = [f"{self.directory}/", "-c", str(self.directory / "nginx.conf")]
        return ["nginx", "-e", "stderr", "-p", *prefix, "-g", "daemon off;", *arguments]

    def __enter__(self) -> NginxServer:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self) -> None:
        """Start and wait until it has its port. Blocks."""
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=os.environ | {"PATH": PATH}
            )
        eventually_sync(self._started)

    def _started(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"nginx ended: {self.log[-2000:]}")
        return (self.directory / "nginx.pid").exists()

    @property
    def workers(self) -> set[int]:
        """Their pids, old ones that still have connections included."""
        assert self.process is not None, "nginx does not run"
        pid = self.process.pid
        return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def reload(self) -> None:
        """``nginx -s reload``. Returns at once: the workers of the old configuration go on with their connections."""
        assert self.process is not None, "nginx does not run"
        self.process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """``kill -9`` the master and all workers. ``start`` again on the same port."""
        assert self.process is not None, "nginx does not run"
        workers = self.workers
        self.process.kill()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        self.process = None
        (self.directory / "nginx.pid").unlink()

    def __exit__(self, *exc_info: object) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
            self.process = None
        shutil.rmtree(self.directory, ignore_errors=True)


def static_upstream(node_ports: Sequence[int]) -> str:
    """deploy/nginx/upstream-static.conf with these nodes in the place of its two."""
    template = (CONFIGURATION / "upstream-static.conf").read_text()
    before, _, rest = template.partition("    server ")
    options = rest[rest.index(" ") : rest.index(";")]
    after = rest[rest.index("}") :]
    return before + "".join(f"    server 127.0.0.1:{port}{options};\n" for port in node_ports) + after
