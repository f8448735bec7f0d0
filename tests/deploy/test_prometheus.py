"""deploy/prometheus in a real Prometheus: the file that compose mounts scrapes what a node exports."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.metrics import Metrics
from tests.support.redis_server import free_port
from tests.support.waiting import eventually_sync

pytestmark = pytest.mark.system

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"


def test_promtool_accepts_the_configuration() -> None:
    result = subprocess.run(
        ["promtool", "check", "config", str(CONFIGURATION / "prometheus.yml")],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def exporter() -> Iterator[tuple[Metrics, int]]:
    """What a node exports, and the port where it does."""
    metrics = Metrics()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.send_header("Content-Type", metrics.content_type)
            self.end_headers()
            self.wfile.write(metrics.render())

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing to standard error."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield metrics, server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Its directory (for targets/) and its port."""
    shutil.copy(CONFIGURATION / "prometheus.yml", tmp_path)
    (tmp_path / "targets").mkdir()
    port = free_port()
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    yield tmp_path, port
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def query(port: int, expression: str) -> list[float]:
    """The values of an instant query; none while Prometheus is not up yet."""
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return [float(sample["value"][1]) for sample in json.load(answer)["data"]["result"]]
    except OSError:
        return []


@pytest.mark.timeout(90)
def test_a_node_that_is_listed_is_scraped(exporter: tuple[Metrics, int], prometheus: tuple[Path, int]) -> None:
    metrics, node_port = exporter
    directory, port = prometheus
    metrics.counts.deliveries = 12345
    metrics.fanout_seconds.observe(0.002)
    (directory / "targets" / "nodes.json").write_text(json.dumps([{"targets": [f"127.0.0.1:{node_port}"]}]))
    eventually_sync(lambda: query(port, 'roomcast_deliveries_total{job="roomcast"}') == [12345], 60)
    assert query(port, 'up{job="roomcast"}') == [1]
    assert query(port, "histogram_quantile(0.5, roomcast_fanout_seconds_bucket)")
