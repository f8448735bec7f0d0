"""Scenario ``rolling``: all nodes are restarted one after the other behind nginx, and nobody should notice."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from typer import Option

from loadtests.crowd import Crowd, peak_to_mean
from loadtests.curves import distribution, per_second
from loadtests.installation import Installation
from loadtests.options import TalkRate
from loadtests.result import Column, Distribution, Goal, Plot, Result, Sample, Timeline
from loadtests.sampling import CPU_SPLIT, CPU_TIMELINE, MEMORY, Watch
from loadtests.stage import allow_open_files
from loadtests.steps import steps

COLUMNS = (
    Column("restarts", "nodes restarted"),
    Column("published", "messages acknowledged"),
    Column("lost", "messages lost, of all members"),
    Column("duplicated", "messages twice"),
    Column("resets", "rooms reset"),
    Column("presence_events", "presence events seen by observers"),
    Column("reconnects", "reconnects"),
    Column("refused", "of them that had to try again"),
    Column("exit_s", "slowest node to leave, s", 1),
    Column("peak_to_mean", "peak of reconnects to their mean", 2),
)
PLOTS: tuple[Plot, ...] = (
    Timeline("Reconnects", "per second", {"reconnects_per_s": ""}),
    Timeline("Deliveries", "per second", {"per_s": ""}),
    Distribution("Latency, from said to heard, also by those who were away", "latency_us"),
    CPU_SPLIT,
    CPU_TIMELINE,
    MEMORY,
)
UNHURRIED = {"requests_per_s": 1_000_000, "requests_burst": 1_000_000, "presence_broadcast": "rooms"}
PEAK_WINDOW_S = 1.0
ARRIVE_S = 120.0
Marks = list[tuple[float, str]]
PAUSE_S = 2.0
"""Between a node that is back and the next that leaves."""


@dataclass(frozen=True)
class Rolling:
    """A rolling restart behind nginx under load, with clients that follow the protocol's rules for coming back.

    Checks that every member saw every acknowledged message once and in order, and that three observers saw nobody come
    or go. Goal: reconnects peak at 1.5 x their mean, over windows of a second.
    """

    connections: Annotated[int, Option(min=10, help="Clients in rooms of twenty, through nginx.")] = 1500
    nodes: Annotated[int, Option(min=2, help="Restarted one after the other.")] = 3
    rate: TalkRate = 100
    drain_s: Annotated[float, Option("--drain", min=0, help="Seconds over which a node closes its connections.")] = 20.0
    rebalance_per_s: Annotated[float, Option("--rebalance", min=0, help="ROOMCAST_REBALANCE_PER_S of the nodes.")] = 0.0

    def goals(self) -> list[Goal]:
        words = f"{PEAK_WINDOW_S:g} s windows"
        zero = [Goal(figure, "value", None, 0, "any size") for figure in ("presence_events", "resets")]
        return [*zero, Goal("peak_to_mean", "value", None, 1.5, words)]


def run(scenario: Rolling, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when it could not be measured."""
    allow_open_files(3 * scenario.connections)
    settings = {"drain_s": scenario.drain_s, "rebalance_per_s": scenario.rebalance_per_s, **UNHURRIED}
    with Installation(scenario.nodes, settings) as installation:
        sample, marks = asyncio.run(_roll(scenario, installation, console))
    parameters = {
        "connections": scenario.connections,
        "nodes": scenario.nodes,
        "messages/s": scenario.rate,
        "drain s": scenario.drain_s,
        "rebalance/s": scenario.rebalance_per_s,
    }
    return Result("rolling", parameters, COLUMNS, scenario.goals(), [sample], plots=PLOTS, marks=marks)


async def _roll(scenario: Rolling, installation: Installation, console: Console) -> tuple[Sample, Marks]:
    loop = asyncio.get_running_loop()
    crowd = Crowd(scenario.connections, ("127.0.0.1", installation.port))
    peaks: list[float] = []
    exits_s: list[float] = []
    await crowd.arrive(ARRIVE_S)
    marks: Marks = []
    watch, start_s = Watch(lambda: installation.pids), loop.time()
    with steps(scenario.nodes, console) as progress:
        async with crowd.talking(scenario.rate):
            for number, port in enumerate(installation.ports, 1):
                with progress.step(f"node {number}/{scenario.nodes}") as tell:
                    began_s = loop.time()
                    marks.append((began_s - start_s, "a node is told to leave"))
                    tell("leaves")
                    exits_s.append(await asyncio.to_thread(installation.stop_node, port))
                    tell("comes back")
                    await asyncio.to_thread(installation.start_node, port)
                    await asyncio.sleep(PAUSE_S)
                    peaks.append(peak_to_mean(crowd.tries_s(began_s), PEAK_WINDOW_S))
    used = watch.close()
    in_time = await crowd.settled(30)
    verdict = crowd.verdict()
    figures = {
        **used,
        **verdict,
        "failed": 0.0 if in_time else 1.0,
        "restarts": float(len(exits_s)),
        "published": float(crowd.published),
        "reconnects": float(len(crowd.tries_s(0))),
        "refused": float(sum(code != 1012 for member in crowd.everybody for code in member.closes)),
        "exit_s": max(exits_s),
        "peak_to_mean": max(peaks),
    }
    await crowd.leave()
    seen = {
        "reconnects_per_s": per_second(crowd.tries_s(start_s), start_s, PEAK_WINDOW_S),
        "per_s": per_second(crowd.heard_s, start_s, PEAK_WINDOW_S),
        "latency_us": distribution(delay_s * 1e6 for delay_s in crowd.delays_s),
    }
    return Sample("node", figures, seen | watch.curves), marks
