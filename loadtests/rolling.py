"""Scenario ``rolling``: all nodes are restarted one after the other behind nginx, and nobody should notice."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from rich.console import Console

from loadtests.crowd import Crowd, peak_to_mean
from loadtests.installation import Installation
from loadtests.result import Column, Goal, Result, Sample
from loadtests.stage import allow_open_files

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
UNHURRIED = {"requests_per_s": 1_000_000, "requests_burst": 1_000_000, "presence_broadcast": "rooms"}
PEAK_WINDOW_S = 1.0
ARRIVE_S = 120.0
PAUSE_S = 2.0
"""Between a node that is back and the next that leaves."""


@dataclass(frozen=True)
class Rolling:
    connections: int = 1500
    nodes: int = 3
    rate: int = 100
    drain_s: float = 20.0
    rebalance_per_s: float = 0.0

    def goals(self) -> list[Goal]:
        words = f"{PEAK_WINDOW_S:g} s windows"
        zero = [Goal(figure, "value", None, 0, "any size") for figure in ("presence_events", "resets")]
        return [*zero, Goal("peak_to_mean", "value", None, 1.5, words)]


def run(scenario: Rolling, console: Console) -> Result:
    """Raises :class:`loadtests.errors.SetupError` when it could not be measured."""
    allow_open_files(3 * scenario.connections)
    settings = {"drain_s": scenario.drain_s, "rebalance_per_s": scenario.rebalance_per_s, **UNHURRIED}
    with Installation(scenario.nodes, settings) as installation:
        figures = asyncio.run(_roll(scenario, installation, console))
    parameters = {
        "connections": scenario.connections,
        "nodes": scenario.nodes,
        "messages/s": scenario.rate,
        "drain s": scenario.drain_s,
        "rebalance/s": scenario.rebalance_per_s,
    }
    return Result("rolling", parameters, COLUMNS, scenario.goals(), [Sample("node", figures)])


async def _roll(scenario: Rolling, installation: Installation, console: Console) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    crowd = Crowd(scenario.connections, ("127.0.0.1", installation.port))
    peaks: list[float] = []
    exits_s: list[float] = []
    await crowd.arrive(ARRIVE_S)
    async with crowd.talking(scenario.rate):
        for port in installation.ports:
            began_s = loop.time()
            exits_s.append(await asyncio.to_thread(installation.stop_node, port))
            await asyncio.to_thread(installation.start_node, port)
            await asyncio.sleep(PAUSE_S)
            tries_s = crowd.tries_s(began_s)
            peaks.append(peak_to_mean(tries_s, PEAK_WINDOW_S))
            console.print(f"restarted in {exits_s[-1]:.1f} s, {len(tries_s):,} reconnects, peak {peaks[-1]:.2f} x mean")
    in_time = await crowd.settled(30)
    verdict = crowd.verdict()
    figures = {
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
    return figures
