"""CLUSTER NODES, as servers of 7.0 and later write it, and whom to believe."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.redis.slots import Server, owners, parse_nodes

TEXT = """\
07c3 127.0.0.1:30004@31004,host4 slave e7d1 0 1426238317239 4 connected
67ed 127.0.0.1:30002@31002,host2,shard-id=69bc master - 0 1426238316232 2 connected 5461-10922 [93-<-292f] [77->-e7d1]
292f 127.0.0.1:30003@31003 master,fail - 0 1426238318243 3 connected 10923-16383
6ec2 127.0.0.1:0@0 master,noaddr - 0 1426238316232 9 disconnected 1-2
824f ::1:30005@31005,,tls-port=0 master - 0 1426238316232 5 connected
aaaa 127.0.0.1:30009@31009 handshake - 0 0 0 connected
e7d1 :30001@31001 myself,master - 0 0 1 connected 0-99 101 103-5460
"""


def test_lines_are_read_as_they_are_written() -> None:
    assert parse_nodes(TEXT, "10.0.0.1") == [
        Server("127.0.0.1", 30004, "host4", False, 4, ()),
        Server("127.0.0.1", 30002, "host2", True, 2, ((5461, 10922),)),
        Server("127.0.0.1", 30003, "", True, 3, ((10923, 16383),)),
        Server("::1", 30005, "", True, 5, ()),
        Server("10.0.0.1", 30001, "", True, 1, ((0, 99), (101, 101), (103, 5460))),
    ]


def test_a_failed_master_keeps_its_slots_until_another_one_has_them() -> None:
    view = parse_nodes(TEXT, "h")
    assert [server and server.port for server in owners([0, 100, 101, 6000, 16383], [view])] == [
        30001, None, 30001, 30002, 30003,
    ]  # fmt: skip


@given(st.permutations([1, 2, 3]))
def test_who_is_behind_is_outvoted_by_whoever_knows_of_a_later_claim(order: list[int]) -> None:
    views = [[Server("h", epoch, "", True, epoch, ((0, 10),)), Server("r", epoch, "", False, 9, ())] for epoch in order]
    assert [server and server.port for server in owners([5], views)] == [3]
