"""Tables of made-up figures, and the texts beside them."""

from __future__ import annotations

from loadtests.comparison import COLUMNS, Comparison
from loadtests.peer import NAMES, PEERS
from loadtests.peer_packages import locked_version
from loadtests.peer_stage import FULL, Offer
from loadtests.peer_table import as_json, markdown, table_of
from loadtests.result import Result, Sample

WS, NCHAN = (next(peer for peer in PEERS if peer.name == name) for name in ("ws", "nchan"))


def sample(name: str, peak_per_s: float, cost_rate: float = 50) -> Sample:
    figures = {column.figure: 0.0 for column in COLUMNS}
    return Sample(name, figures | {"peak_per_s": peak_per_s, "cost_rate": cost_rate, "cost_us": 12.345, "p99_us": 6543})


def comparison(*samples: Sample, **limits: object) -> Comparison:
    result = Result("peers", {"samples": 1}, COLUMNS, [], samples, ["a remark"])
    why = {"nchan": "nginx is not\ninstalled | at all"}
    return Comparison(result, ["baseline", "node", WS, NCHAN], {"ws": "8.0"}, why, frozenset({"baseline"}))


FOUND = comparison(sample("baseline", 2e6), sample("node", 1e6), sample("ws", 30_000, cost_rate=10))


def test_each_server_has_a_line_in_the_page_and_says_why_if_it_was_not_measured() -> None:
    lines = markdown(FOUND, "python -m loadtests peers").splitlines()
    assert "`python -m loadtests peers`" in lines[0]
    assert "| bare C loop |  | ≥ 2,000,000 | 0 % | 12.35 (0.00) | 6.5 | 0 |" in lines
    assert "| **Roomcast node** |  | 1,000,000 | 0 % | 12.35 (0.00) | 6.5 | 0 |" in lines
    assert "| ws, a loop over its clients | 8.0 | 30,000 | 0 % | 12.35 (0.00), at 10/s | 6.5 | 0 |" in lines
    assert "| Nchan, through Redis |  | not measured: nginx is not installed / at all |  |  |  |  |" in lines
    assert "Note: a remark." in lines
    assert f"| {NCHAN.title} | {NCHAN.published} | {NCHAN.differs} |" in lines
    cells = {line.count("|") for line in lines if line.startswith("|") and "µs" not in line}
    assert cells == {8, 4}


def test_the_terminal_shows_the_same_servers() -> None:
    assert table_of(FOUND).row_count == 4


def test_programs_are_told_too() -> None:
    told = as_json(FOUND)
    assert (told["not_measured"], told["versions"]) == (FOUND.not_measured, {"ws": "8.0"})
    assert told["peak_limited_by_the_load"] == ["baseline"]


def offer(cpu_share: float, deliveries_per_s: float, lost: float = 0) -> Offer:
    return Offer(10, 5, {"cpu_share": cpu_share, "deliveries_per_s": deliveries_per_s, "lost": lost})


def test_only_a_server_with_power_left_is_at_fault() -> None:
    assert offer(0.1, 50, lost=1).faults == {"lost": 1}, "it kept up and lost one"
    assert offer(0.1, 20, lost=60).faults == {"lost": 60}, "idle, and lost most"
    assert offer(FULL, 49, lost=1).faults == {}, "its core was full"
    assert offer(0.6, 20, lost=60).faults == {}, "it fell behind"
    assert offer(0.1, 20).faults == {}, "late is not lost"


def test_names_are_told_apart() -> None:
    assert len(set(NAMES)) == len(NAMES) == 8


def test_a_locked_version_is_read_with_extras_and_markers() -> None:
    lock = "channels-redis==4.3.0 \\\n    --hash=sha256:aa\nchannels[daphne]==4.3.2 ; python_version > '3'\n"
    assert (locked_version(lock, "channels"), locked_version(lock, "channels-redis")) == ("4.3.2", "4.3.0")
    assert locked_version(lock, "redis") == "?"
