"""What a worker is told, and the sockets it shares."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from server.workplace import VARIABLE, Place, shared_sockets, take_place


def test_a_place_survives_the_environment_and_is_taken_once() -> None:
    environ = {VARIABLE: Place(3, 8000, 7).variable}
    assert take_place(environ) == Place(3, 8000, 7)
    assert take_place(environ) is None


def test_two_share_a_port_and_a_third_without_asking_does_not() -> None:
    with ExitStack() as stack:
        (first,) = map(stack.enter_context, shared_sockets("127.0.0.1", 0))
        port = first.getsockname()[1]
        (second,) = map(stack.enter_context, shared_sockets("127.0.0.1", port))
        second.listen()
        with pytest.raises(OSError), socket.create_server(("127.0.0.1", port)):
            pass


def test_every_address_of_a_host_gets_the_same_port() -> None:
    with ExitStack() as stack:
        found = [stack.enter_context(each) for each in shared_sockets("localhost", 0)]
        families = {family for family, *_ in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
        assert {each.family for each in found} == families
        assert len({each.getsockname()[1] for each in found}) == 1
