"""A network of the test's own, whose packets can be lost: what no proxy can do, because it answers for the other end.

The calling thread moves into a fresh network namespace, and with it every process and socket it makes until the end of
the block. Rules in there touch nobody else, and the namespace goes with the last process in it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    """Loopback only. ``drop`` and ``lose`` act on packets to or from one TCP port, in both directions."""

    def drop(self, port: int) -> None:
        """Nothing passes any more, and nobody is told."""
        self._rules(port, [])

    def lose(self, port: int, probability: float) -> None:
        """So many packets do not arrive."""
        self._rules(port, ["-m", "statistic", "--mode", "random", "--probability", str(probability)])

    def heal(self) -> None:
        _run("iptables", "-F", "INPUT")

    def _rules(self, port: int, match: list[str]) -> None:
        for side in ("--dport", "--sport"):
            _run("iptables", "-A", "INPUT", "-p", "tcp", side, str(port), *match, "-j", "DROP")


@contextmanager
def private_network() -> Iterator[Network]:
    """Only root may: others skip the test, and tests/support/tcp_proxy.py has to do."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces and iptables need root")
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _check(_libc.unshare(CLONE_NEWNET))
        try:
            _run("ip", "link", "set", "lo", "up")
            yield Network()
        finally:
            _check(_libc.setns(home, CLONE_NEWNET))
    finally:
        os.close(home)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _run(*command: str) -> None:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PATH": path})
