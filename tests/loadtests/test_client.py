"""The load client tells exactly what went wrong, and reads frames however they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.errors import SetupError
from loadtests.native import build
from loadtests.processes import Native
from loadtests.stage import Dialect
from tests.loadtests.scripted_server import JOINED, WELCOME, ScriptedServer, message, text_frame


def options(server: ScriptedServer, dialect: Dialect = "roomcast") -> list[str]:
    words = ["--host", "127.0.0.1", "--port", str(server.port), "--path", "/ws?user={n}", "--room", "bench"]
    return [*words, "--dialect", dialect, "--sources", "1"]


def watch(folder: Path, server: ScriptedServer, last: int, dialect: Dialect = "roomcast") -> dict[str, float]:
    """What the client reports after one connection saw all the server had, when 1 … ``last`` were published."""
    with Native("client", [build("client"), *options(server, dialect)], folder=folder, core=None) as client:
        client.ask("open 1 1", timeout_s=10)
        client.ask(f"reach {last}", timeout_s=20)
        return client.ask(f"report {last}", timeout_s=10)


def node(chunks: Sequence[bytes]) -> ScriptedServer:
    return ScriptedServer(chunks, WELCOME + JOINED)


def frames(numbers: Sequence[int]) -> bytes:
    return b"".join(text_frame(message(n)) for n in numbers)


@pytest.mark.parametrize(
    ("numbers", "lost", "duplicated", "reordered"),
    [
        pytest.param([1, 2, 3, 4, 5], 0, 0, 0, id="all well"),
        pytest.param([1, 2, 4, 5], 1, 0, 0, id="one lost"),
        pytest.param([2, 3, 4, 5], 1, 0, 0, id="the first lost"),
        pytest.param([1, 5], 3, 0, 0, id="three lost in a row"),
        pytest.param([1, 2, 2, 3, 4, 5], 0, 1, 0, id="one doubled"),
        pytest.param([1, 2, 3, 4, 1, 5], 0, 1, 0, id="one doubled much later"),
        pytest.param([1, 3, 2, 4, 5], 0, 0, 1, id="two swapped"),
        pytest.param([1, 4, 3, 3, 5], 1, 1, 1, id="lost, doubled and reordered"),
    ],
)
def test_counts_are_exact(tmp_path: Path, numbers: list[int], lost: int, duplicated: int, reordered: int) -> None:
    with node([frames(numbers)]) as server:
        report = watch(tmp_path, server, 5)
    assert (report["lost"], report["duplicated"], report["reordered"]) == (lost, duplicated, reordered)
    assert report["deliveries"] == len(numbers)
    assert report["faulty_connections"] == (1 if lost or duplicated or reordered else 0)


@settings(max_examples=15, deadline=None)
@given(numbers=st.lists(st.integers(1, 30), max_size=60))
def test_counts_agree_with_a_naive_model(tmp_path_factory: pytest.TempPathFactory, numbers: list[int]) -> None:
    seen: set[int] = set()
    duplicated = reordered = 0
    for number in numbers:
        duplicated += number in seen
        reordered += number not in seen and number < max(seen, default=0)
        seen.add(number)
    numbers = [*numbers, 31]
    with node([frames(numbers)]) as server:
        report = watch(tmp_path_factory.mktemp("client"), server, 31)
    assert report["lost"] == 30 - len(seen)
    assert (report["duplicated"], report["reordered"]) == (duplicated, reordered)


def test_messages_missing_at_the_end_are_lost(tmp_path: Path) -> None:
    with node([frames([1, 2, 3])]) as server:
        assert watch(tmp_path, server, 5)["lost"] == 2


def test_frames_arrive_byte_by_byte_and_with_every_width_of_length(tmp_path: Path) -> None:
    sent = text_frame(message(1)) + text_frame(message(2), wide=True) + text_frame(message(3, pad=70_000))
    head = sent[:400]
    chunks = [head[i : i + 1] for i in range(len(head))] + [sent[400:40_000], sent[40_000:]]
    with node(chunks) as server:
        report = watch(tmp_path, server, 3)
    assert (report["deliveries"], report["lost"], report["closed"]) == (3, 0, 0)


def test_a_ping_is_answered_with_its_payload(tmp_path: Path) -> None:
    with node([text_frame(b"are you there", opcode=9) + frames([1])]) as server:
        report = watch(tmp_path, server, 1)
    assert report["pings"] == 1
    assert server.heard == [b'{"op":"join","room":"bench","id":1}', b"are you there"]


def test_curves_are_what_arrived(tmp_path: Path) -> None:
    with (
        node([text_frame(message(1)) + text_frame(message(2))]) as server,
        Native("client", [build("client"), *options(server)], folder=tmp_path, core=None) as client,
    ):
        client.ask("open 1 1", timeout_s=10)
        client.ask("reach 2", timeout_s=20)
        (edge_us, count), *others = client.curves()["latency_us"]
        assert (count, others) == (2, []), "both were sent at the same moment, long ago"
        assert edge_us >= client.ask("report 2", timeout_s=10)["max_us"]
        [(_, joined)] = client.curves()["joining_us"]
        assert joined == 1


def test_the_number_of_the_connection_becomes_its_user(tmp_path: Path) -> None:
    with node([frames([1])]) as server:
        watch(tmp_path, server, 1)
    assert server.request.startswith(b"GET /ws?user=0 HTTP/1.1\r\n")


def test_a_message_before_the_join_reply_is_counted(tmp_path: Path) -> None:
    answer = WELCOME + frames([1]) + JOINED
    with ScriptedServer([frames([2])], answer) as server:
        report = watch(tmp_path, server, 2)
    assert (report["early"], report["lost"]) == (1, 1)


def test_a_connection_closed_by_the_server_is_counted_and_what_it_missed_is_lost(tmp_path: Path) -> None:
    with node([frames([1]), text_frame(b"\x0f\xa8too slow", opcode=8)]) as server:
        report = watch(tmp_path, server, 3)
    assert (report["connections"], report["closed"], report["lost"]) == (0, 1, 2)


@pytest.mark.parametrize("junk", [b"\xc1\x00", b"\x01\x00", b"\x81\x80\0\0\0\0"], ids=["rsv", "fragment", "masked"])
def test_bytes_that_are_no_frame_of_a_server_end_the_connection(tmp_path: Path, junk: bytes) -> None:
    with node([frames([1]), junk]) as server:
        assert watch(tmp_path, server, 2)["closed"] == 1


def test_a_refused_join_ends_the_run_with_the_servers_words(tmp_path: Path) -> None:
    refusal = text_frame(b'{"op":"reply","id":1,"ok":false,"code":"unauthorized"}')
    with ScriptedServer([], refusal) as server, pytest.raises(SetupError, match="unauthorized"):
        watch(tmp_path, server, 1)


def test_latency_is_counted_from_the_time_in_the_message(tmp_path: Path) -> None:
    with node([text_frame(message(1, sent_ns=1))]) as server:
        report = watch(tmp_path, server, 1)
    # sent at 1 ns after boot: the quantile is the machine's whole uptime, at most 1.6 % too high
    assert report["p50_us"] == report["max_us"] > 1e6


def test_a_member_from_the_upgrade_on_says_nothing(tmp_path: Path) -> None:
    with ScriptedServer([frames([1, 2])]) as server:
        report = watch(tmp_path, server, 2, "bare")
    assert (report["connections"], report["lost"], server.heard) == (1, 0, [])


def test_who_is_greeted_is_a_member(tmp_path: Path) -> None:
    with ScriptedServer([frames([1, 2])], greeting=text_frame(b"joined")) as server:
        report = watch(tmp_path, server, 2, "greeted")
    assert (report["connections"], report["early"], report["lost"], server.heard) == (1, 0, 0, [])


def test_a_client_of_socket_io_connects_joins_and_answers_the_servers_ping(tmp_path: Path) -> None:
    messages = b"".join(text_frame(b'42["message",%b]' % message(n).partition(b'"data":')[2][:-1]) for n in (1, 2))
    answers = (text_frame(b'40{"sid":"b"}'), text_frame(b'430["bench"]'))
    chunks = [text_frame(b"2"), messages]
    with ScriptedServer(chunks, *answers, greeting=text_frame(b'0{"sid":"a","pingInterval":25000}')) as server:
        report = watch(tmp_path, server, 2, "socketio")
    assert (report["deliveries"], report["lost"], report["pings"]) == (2, 0, 1)
    assert server.heard == [b"40", b'420["join","bench"]', b"3"]


def test_a_client_of_centrifugo_reads_every_line_of_a_frame(tmp_path: Path) -> None:
    lines = [
        b'{"push":{"channel":"bench","pub":%b}}' % message(n)[message(n).index(b'"data"') - 1 :] for n in (1, 2, 3)
    ]
    lines = [line.replace(b',"data"', b'{"data"') for line in lines]
    answers = (text_frame(b'{"id":1,"connect":{"client":"c","ping":25}}'), text_frame(b'{"id":2,"subscribe":{}}\n{}'))
    with ScriptedServer(
        [text_frame(b"\n".join(lines[:2])), text_frame(b"{}"), text_frame(lines[2])], *answers
    ) as server:
        report = watch(tmp_path, server, 3, "centrifugo")
    assert (report["deliveries"], report["lost"], report["reordered"], report["pings"]) == (3, 0, 0, 2)
    assert server.heard == [b'{"id":1,"connect":{}}', b'{"id":2,"subscribe":{"channel":"bench"}}', b"{}", b"{}"]


def test_a_refused_subscription_ends_the_run_with_the_servers_words(tmp_path: Path) -> None:
    answers = (text_frame(b'{"id":1,"connect":{}}'), text_frame(b'{"id":2,"error":{"code":103,"message":"denied"}}'))
    with ScriptedServer([], *answers) as server, pytest.raises(SetupError, match="denied"):
        watch(tmp_path, server, 1, "centrifugo")
