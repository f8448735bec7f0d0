"""Scenario ``peers``: servers that others made, a node and the C loop, all asked the same two questions.

How many deliveries a second can one core do, with few members: the offered rate is raised until less than 98 % of it is
delivered (:mod:`loadtests.search`). And what CPU does a delivery cost with many members, at a rate that leaves the core
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from loadtests.errors import SetupError
from loadtests.peer import Peer
from loadtests.peer_packages import version_of, words_of
from loadtests.peer_stage import Offer, Session, session
from loadtests.result import Column, Result, Sample
from loadtests.search import Search
from loadtests.stage import KINDS, Stage, allow_open_files
from loadtests.steps import Tell, steps

COLUMNS = (
    Column("peak_per_s", "peak deliveries/s"),
    Column("peak_rate", "messages/s at it"),
    Column("peak_cpu_share", "CPU of its core at it", percent=True),
    Column("cost_us", "CPU µs per delivery", 2),
    Column("cost_user_us", "of that beyond the kernel", 2),
    Column("cost_rate", "at messages/s"),
    Column("p50_us", "latency p50 µs"),
    Column("p99_us", "latency p99 µs"),
    Column("bytes_per_delivery", "bytes per delivery"),
    Column("rss_mib", "RSS MiB", 1),
    Column("lost", "lost"),
    Column("duplicated", "duplicated"),
)
FIRST_RATE = 16.0
SEARCH_SHARE = 0.5
"""So much of a sample's time each rate of the search is offered."""
WARM_S = 0.5
LOAD_FULL = 0.95
SLOWER = (1, 5, 25)
"""The cost is taken at the wanted rate, or a fifth or a 25th of it for servers that cannot keep up with more."""
ROOM = 0.8
"""A server is asked for the cost at no more than so much of its peak."""


@dataclass(frozen=True)
class Peers:
    """``few`` members for the peak, ``many`` for the cost at ``rate`` messages/s."""

    peers: Sequence[Peer]
    few: int = 100
    many: int = 1000
    rate: int = 50
    duration_s: float = 3.0
    samples: int = 3
    highest_rate: int = 16_000
    centrifugo: Path | None = None


@dataclass(frozen=True)
class Comparison:
    """``not_measured`` says why, by name; ``limited`` are those whose peak was the load's, not theirs."""

    result: Result
    subjects: Sequence[str | Peer]
    versions: dict[str, str]
    not_measured: dict[str, str]
    limited: frozenset[str]


@dataclass
class _Subject:
    """What is measured, and what is known of it so far."""

    what: str | Peer
    words: dict[str, str]
    peak: Offer | None = None
    limited: bool = False

    @property
    def name(self) -> str:
        return self.what.name if isinstance(self.what, Peer) else self.what


def run(scenario: Peers, stage: Stage, console: Console) -> Comparison:
    """A peer that cannot be set up or breaks down is in ``not_measured``. Lost messages are in the result.

    Raises :class:`SetupError` when the node or the C loop cannot be measured.
    """
    allow_open_files(scenario.many)
    subjects = [_Subject(kind, {}) for kind in reversed(KINDS)]
    versions: dict[str, str] = {}
    not_measured: dict[str, str] = {}
    for peer in scenario.peers:
        console.print(f"[dim]{peer.name}: packages[/]")
        try:
            words = words_of(peer.source, scenario.centrifugo)
        except SetupError as error:
            not_measured[peer.name] = str(error)
        else:
            versions[peer.name] = version_of(peer, words)
            subjects.append(_Subject(peer, words))
    samples: list[Sample] = []
    with steps((1 + scenario.samples) * len(subjects), console) as progress:
        for number in range(1 + scenario.samples):
            for subject in subjects:
                name = f"{subject.name}: {f'sample {number} of {scenario.samples}' if number else 'search'}"
                if subject.name in not_measured:
                    continue
                with progress.step(name) as tell:
                    try:
                        if number:
                            samples.append(Sample(subject.name, _sample(scenario, stage, subject, tell)))
                        else:
                            _search(scenario, stage, subject, tell)
                    except SetupError as error:
                        if not isinstance(subject.what, Peer):
                            raise
                        not_measured[subject.name] = str(error)
    samples = [sample for sample in samples if sample.server not in not_measured]
    parameters = {
        "members": f"{scenario.few} and {scenario.many}",
        "seconds": scenario.duration_s,
        "samples": scenario.samples,
        "payload bytes": 100,
        **stage.parameters,
    }
    limited = frozenset(subject.name for subject in subjects if subject.limited)
    result = Result("peers", parameters, COLUMNS, [], samples, _notes(samples, stage))
    return Comparison(result, [*KINDS[::-1], *scenario.peers], versions, not_measured, limited)


def _search(scenario: Peers, stage: Stage, subject: _Subject, tell: Tell) -> None:
    """Find the peak. Each rate after one that was too much is offered to a fresh server."""
    search = Search(FIRST_RATE, scenario.highest_rate)
    last: Offer | None = None
    while search.rate is not None:
        with session(stage, subject.what, subject.words) as fresh:
            fresh.join(scenario.few)
            fresh.offer(FIRST_RATE, WARM_S)
            fell_behind = False
            while search.rate is not None and not fell_behind:
                tell(f"{search.rate:,.0f} messages/s")
                last = _offer(fresh, search.rate, SEARCH_SHARE * scenario.duration_s)
                if last.kept_up and last.clean:
                    subject.peak = last
                    search.kept_up()
                else:
                    search.fell_behind()
                    fell_behind = True
                    subject.limited = not last.full and last.figures.get("load_core_busy", 0.0) >= LOAD_FULL
    if subject.peak is None:
        subject.peak = last
    elif search.too_much is None:
        subject.limited = True


def _offer(fresh: Session, rate: float, seconds: float) -> Offer:
    """A second time if it was too much although the core was not full: then something else may have had the core."""
    offer = fresh.offer(rate, seconds)
    if not offer.kept_up and not offer.full and offer.clean:
        offer = fresh.offer(rate, seconds)
    return offer


def _sample(scenario: Peers, stage: Stage, subject: _Subject, tell: Tell) -> dict[str, float]:
    assert subject.peak is not None
    peak_rate = subject.peak.rate
    cost_rate = next(
        (scenario.rate / slower for slower in SLOWER if _bearable(scenario.rate / slower, scenario.many, subject)),
        scenario.rate / SLOWER[-1],
    )
    with session(stage, subject.what, subject.words) as fresh:
        fresh.join(scenario.few)
        fresh.offer(min(FIRST_RATE, peak_rate), WARM_S)
        tell(f"{scenario.few} × {peak_rate:,.0f}")
        peak = fresh.offer(peak_rate, scenario.duration_s)
        if peak.kept_up and peak.clean:
            fresh.join(scenario.many - scenario.few)
            cost = _cost(scenario, fresh, cost_rate, tell)
    faults = [fresh.faults]
    if not (peak.kept_up and peak.clean):
        with session(stage, subject.what, subject.words) as fresh:
            fresh.join(scenario.many)
            cost = _cost(scenario, fresh, cost_rate, tell)
        faults.append(fresh.faults)
    figures = {
        "peak_per_s": peak.figures["deliveries_per_s"],
        "peak_rate": peak_rate,
        "peak_cpu_share": peak.figures["cpu_share"],
        "cost_us": cost.figures["cpu_us_per_delivery"],
        "cost_user_us": cost.figures["cpu_us_per_delivery"] * (1 - cost.figures["kernel_share"]),
        "cost_rate": cost_rate,
        **{name: cost.figures[name] for name in ("p50_us", "p99_us", "bytes_per_delivery", "cpu_share", "rss_mib")},
        "lost": 0.0,
        "duplicated": 0.0,
        "strangers": max(o.figures.get("server_core_busy", 0.0) - o.figures["cpu_share"] for o in (peak, cost)),
    }
    for found in faults:
        for name, count in found.items():
            figures[name] = figures.get(name, 0.0) + count
    return figures


def _bearable(rate: float, members: int, subject: _Subject) -> bool:
    assert subject.peak is not None
    return subject.limited or rate * members <= ROOM * subject.peak.figures["deliveries_per_s"]


def _cost(scenario: Peers, fresh: Session, rate: float, tell: Tell) -> Offer:
    tell(f"{scenario.many} × {rate:,.0f}")
    fresh.offer(rate, WARM_S)
    return fresh.offer(rate, scenario.duration_s)


def _notes(samples: Sequence[Sample], stage: Stage) -> list[str]:
    if stage.load_core is None:
        return ["only one core: the server, Redis and the load shared it, the figures mean little"]
    noisy = max((sample.figures["strangers"] for sample in samples), default=0.0)
    if noisy > 0.1:
        return [f"up to {noisy:.0%} of the server's core went to something else: a noisy machine, measure again"]
    return []
