"""The child of the reloader does not outlive it; one that fails waits for a change, and says so."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.node import NodeServer
from tests.support.waiting import eventually_sync


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.system
def test_no_node_is_left_behind_when_the_reloader_is_killed() -> None:
    with NodeServer(app="tests.support.address_app:hub", drain_s=0) as node:
        assert answers(node.port)
    eventually_sync(lambda: not answers(node.port))


@pytest.mark.system
def test_a_mistake_in_the_application_waits_for_its_mending(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server", "serve", "--dev", "--port", "0", "--app", "mine:hub"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as node:
        assert node.stderr is not None
        assert "there is no module mine" in node.stderr.readline()
        assert node.stderr.readline() == "roomcast: waiting for a file to change (Ctrl-C ends)\n"
        (tmp_path / "mine.py").write_text("from roomcast import Hub\nhub = Hub()\n")
        assert node.stderr.readline() == "roomcast: a file has changed, starting again\n"
        assert any("running on" in line for line in node.stderr)
        node.send_signal(signal.SIGINT)
        assert node.wait() == 0
