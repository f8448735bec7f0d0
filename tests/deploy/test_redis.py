"""deploy/redis as compose.yaml starts it: who may do what, and what is kept."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import NoPermissionError

from broker.redis.acl import acl_rules
from tests.support.node import NodeServer
from tests.support.redis_server import free_port
from tests.support.waiting import eventually_sync

pytestmark = pytest.mark.redis

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "redis"
PASSWORD = "c0ffee"


def test_the_nodes_user_has_the_rights_a_node_needs_and_no_more() -> None:
    wanted = " ".join(acl_rules())
    assert (FOLDER / "users.acl").read_text() == wanted + "\n", f"write this line to deploy/redis/users.acl:\n{wanted}"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[int]:
    """Its port. The container's /tmp, /data and port are this test's."""
    port = free_port()
    changes = {"/tmp/": f"{tmp_path}/", "dir /data": f"dir {tmp_path}", "bind * -::*": f"bind 127.0.0.1\nport {port}"}
    configuration = tmp_path / "etc"
    configuration.mkdir()
    for path in FOLDER.iterdir():
        text = path.read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        (configuration / path.name).write_text(text)
    environment = os.environ | {"REDIS_PASSWORD": PASSWORD, "REDIS_MAXMEMORY": "64mb"}
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(["sh", str(configuration / "start")], env=environment, stdout=log, stderr=log)
    try:
        eventually_sync(lambda: "Ready to accept" in (tmp_path / "log").read_text())
        yield port
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(tmp_path / "appendonlydir", ignore_errors=True)


def client(port: int, **options: str) -> redis.Redis:
    return redis.Redis(port=port, protocol=2, decode_responses=True, **options)  # type: ignore[arg-type]


def test_a_node_works_as_its_user_which_may_do_nothing_else(started: int) -> None:
    with NodeServer(broker=f"redis://roomcast:{PASSWORD}@127.0.0.1:{started}/0") as node:
        assert node.get("/readyz")[0] == 200
    with client(started, username="roomcast", password=PASSWORD) as user:
        for command in ("FLUSHALL", "KEYS *", "CONFIG GET *", "ACL LIST", "SHUTDOWN", "MONITOR", "GET other:key"):
            with pytest.raises(NoPermissionError):
                user.execute_command(*command.split())


def test_without_a_password_nobody_gets_in(started: int) -> None:
    for options in ({}, {"password": PASSWORD}, {"username": "roomcast", "password": "wrong"}):
        with client(started, **options) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_the_operator_inside_the_container_may_do_all(started: int, tmp_path: Path) -> None:
    def ask(*words: str) -> str:
        command = ["sh", str(tmp_path / "etc" / "cli"), "-p", str(started), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout

    assert ask("ping") == "PONG\n"
    got = dict(re.findall(r"(\S+)\n(.*)\n", ask("config", "get", "maxmemory*", "append*", "save", "client-output*")))
    assert got["maxmemory"] == str(64 * 2**20)
    assert got["maxmemory-policy"] == "noeviction"
    assert (got["appendonly"], got["appendfsync"], got["save"]) == ("yes", "everysec", "")
    assert f"pubsub {256 * 2**20} {64 * 2**20} 60" in got["client-output-buffer-limit"]
    assert (tmp_path / "operator").stat().st_mode & 0o077 == 0
    assert (tmp_path / "users.acl").stat().st_mode & 0o077 == 0
