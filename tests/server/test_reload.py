"""The child of the reloader does not outlive it."""

from __future__ import annotations

import socket

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
