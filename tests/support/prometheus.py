"""A real Prometheus for tests, on the configuration that Roomcast ships, only faster."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.redis_server import free_port

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
EVERY_S = 2
"""Between two scrapes, and two evaluations of the rules; 5 s as shipped. Also how long a scrape may take: one that does
not come in time on a draining node was the last, as it takes no new connections."""


class Prometheus:
    """One server. A context manager; what it starts it also stops, by pid, and its directory goes with it."""

    def __init__(self, targets: Sequence[str]) -> None:
        """``targets`` are host:port, listed in a file as one lists nodes elsewhere than in compose."""
        self.directory = Path(tempfile.mkdtemp(prefix="rc-prometheus-", dir="/tmp"))
        self.port = free_port()
        text = (CONFIGURATION / "prometheus.yml").read_text(encoding="utf-8")
        faster = text.replace("_interval: 5s", f"_interval: {EVERY_S}s").replace("timeout: 4s", f"timeout: {EVERY_S}s")
        (self.directory / "prometheus.yml").write_text(faster, encoding="utf-8")
        for rules in CONFIGURATION.glob("*.rules.yml"):
            shutil.copy(rules, self.directory)
        (self.directory / "targets").mkdir()
        (self.directory / "targets" / "nodes.json").write_text(json.dumps([{"targets": list(targets)}]))
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        with open(self.directory / "log", "wb") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self.directory}/prometheus.yml",
                    f"--storage.tsdb.path={self.directory}/data",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)

    def ask(self, path: str, **query: str) -> Any:
        """The ``data`` of one request to the HTTP API. OSError while it is not up; AssertionError for what it refuses,
        such as an expression that is none."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?" + urllib.parse.urlencode(query)
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # still starting
                raise OSError("not ready") from error
            raise AssertionError(f"{query}: {error.read().decode()}") from error

    def query(self, expression: str) -> list[float]:
        """The values of an instant query; none while Prometheus is not up yet."""
        try:
            return [float(sample["value"][1]) for sample in self.ask("query", query=expression)["result"]]
        except OSError:
            return []

    def rules(self) -> list[dict[str, Any]]:
        """All rules with what their last evaluation came to."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]
