"""The command line: ``python -m loadtests fanout|idle|handshake``."""

from __future__ import annotations

from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtests import bench as bench_of_all
from loadtests import cluster as cluster_scenario
from loadtests import fanout as fanout_scenario
from loadtests import handshake as handshake_scenario
from loadtests import idle as idle_scenario
from loadtests import masters as masters_scenario
from loadtests import presence_storm as presence_storm_scenario
from loadtests import rolling as rolling_scenario
from loadtests import slow as slow_scenario
from loadtests import soak as soak_scenario
from loadtests import storm as storm_scenario
from loadtests import talk as talk_scenario
from loadtests.cluster import Cluster
from loadtests.errors import SetupError
from loadtests.fanout import Fanout
from loadtests.handshake import Handshake
from loadtests.idle import Idle
from loadtests.masters import Masters
from loadtests.presence_storm import PresenceStorm
from loadtests.report import print_result, report_of, write_json
from loadtests.result import Result
from loadtests.rolling import Rolling
from loadtests.slow import Slow
from loadtests.soak import Soak
from loadtests.stage import NODE_COMMAND, Presence, Stage, Through
from loadtests.storm import Storm
from loadtests.talk import Talk

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="""Measure a Roomcast node against a bare C loop in the same run.

Each scenario starts its own redis-server, then the node and the baseline in turn, each alone on the first core;
Redis, the publisher and the load client (C, compiled with cc at first use) share the second. The baseline hears the
same Redis channel and sends the same bytes, so the ratio of the two says what the node costs on any machine.

Exit code 0: measured and every message arrived once, in order. 1: a message was lost, doubled or reordered, or a
connection failed. 2: could not be measured; the text says why. A missed goal is printed and does not change the code.

Examples:

python -m loadtests fanout --subscribers 1000 --rate 50 --json fanout.json

python -m loadtests idle --connections 8000

python -m loadtests handshake
""",
)

Samples = Annotated[int, typer.Option(min=1, help="How often each server is measured; the table shows medians.")]
PresenceMode = Annotated[Presence, typer.Option(help="Presence mode of the node (ROOMCAST_PRESENCE_BROADCAST).")]
Node = Annotated[
    str,
    typer.Option(
        metavar="COMMAND",
        help="What is measured as the node, any server that speaks its protocol. The words {port}, {redis_port}, "
        "{channel} and {room} are filled in, and ROOMCAST_HOST, ROOMCAST_PORT, ROOMCAST_BROKER are set.",
        show_default="python -m server serve",
    ),
]
Json = Annotated[Path | None, typer.Option(metavar="PATH", help="Write all samples, medians and ratios there, too.")]


def _run(scenario: Callable[[Stage, Console], Result], node: str, presence: Presence, json: Path | None) -> None:
    def measure(console: Console) -> Result:
        with Stage(node=node, presence=presence) as stage:
            return scenario(stage, console)

    _tell(measure, json)


def _tell(measure: Callable[[Console], Result], json: Path | None) -> None:
    console = Console()
    try:
        result = measure(console)
    except SetupError as error:
        Console(stderr=True).print(f"not measured: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    print_result(result, console)
    if json is not None:
        write_json(result, json)
    if result.faults():
        raise typer.Exit(1)


@app.command()
def fanout(
    subscribers: Annotated[int, typer.Option(min=1, help="Connections in the one room.")] = 100,
    rate: Annotated[int, typer.Option(min=1, help="Messages per second offered to the room.")] = 6000,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long messages are published, after the warm-up.")] = 10,
    warmup: Annotated[float, typer.Option(min=0, help="Seconds of the same load before anything is counted.")] = 2,
    samples: Samples = 3,
    pace_us: Annotated[
        int, typer.Option(min=0, help="Gather messages for so many µs before they leave together; 0: each by itself.")
    ] = 0,
    through: Annotated[
        Through, typer.Option(help="How messages reach Redis: bare PUBLISH, or the node's append script with its log.")
    ] = "publish",
    presence: PresenceMode = "rooms",
    node: Node = NODE_COMMAND,
    json: Json = None,
) -> None:
    """One room, many subscribers, 100-byte payloads at a fixed rate.

    Checks per connection that every message arrived once and in order. Latency counts from the moment the schedule
    wanted a message to leave. Goals: 100 x 6,000 at least 0.85 x the baseline's deliveries; 1,000 x 50 at most
    1.3 x its CPU per delivery.
    """
    scenario = Fanout(subscribers, rate, seconds, warmup, samples, pace_us, through)
    _run(lambda stage, console: fanout_scenario.run(scenario, stage, console), node, presence, json)


@app.command()
def idle(
    connections: Annotated[int, typer.Option(min=1, help="Joined connections that then say nothing.")] = 8000,
    hold: Annotated[float, typer.Option(min=0, help="Seconds to hold them; 12 covers one round of pings.")] = 12,
    samples: Samples = 1,
    presence: PresenceMode = "rooms",
    node: Node = NODE_COMMAND,
    json: Json = None,
) -> None:
    """Resident memory per joined idle connection. Goal: at most 10 KiB at 8,000 connections."""
    scenario = Idle(connections, hold, samples)
    _run(lambda stage, console: idle_scenario.run(scenario, stage, console), node, presence, json)


@app.command()
def handshake(
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each of the two kinds is measured.")] = 5,
    in_flight: Annotated[int, typer.Option(min=1, help="Connections being opened or closed at the same time.")] = 64,
    samples: Samples = 3,
    presence: PresenceMode = "rooms",
    node: Node = NODE_COMMAND,
    json: Json = None,
) -> None:
    """Handshakes per second, bare and with a join. Goal: at least 2,000 handshakes/s on one core."""
    scenario = Handshake(seconds, in_flight, samples)
    _run(lambda stage, console: handshake_scenario.run(scenario, stage, console), node, presence, json)


@app.command()
def chat(
    rooms: Annotated[int, typer.Option(min=1, help="Rooms of five.")] = 1000,
    rate: Annotated[int, typer.Option(min=1, help="Messages per second, all members together.")] = 2000,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long they talk, after the warm-up.")] = 10,
    samples: Samples = 3,
    presence: PresenceMode = "rooms",
    node: Node = NODE_COMMAND,
    json: Json = None,
) -> None:
    """Rooms of five in which everybody speaks: messages in, through Redis with log and dedup key, and out.

    The baseline passes messages on without Redis. Goal at 1,000 rooms: beyond the kernel's part at most 40 µs of node
    CPU per message and 3 µs per delivery.
    """
    scenario = Talk(
        "chat", members=5 * rooms, rooms=rooms, rooms_each=1, rate=rate, duration_s=seconds, samples=samples
    )
    _run(lambda stage, console: talk_scenario.run(scenario, stage, console), node, presence, json)


@app.command(name="many-rooms")
def many_rooms(
    connections: Annotated[int, typer.Option(min=10, help="Connections, each in 50 rooms of ten.")] = 200,
    rate: Annotated[int, typer.Option(min=1, help="Messages per second, all members together.")] = 1000,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long they talk, after the warm-up.")] = 10,
    samples: Samples = 3,
    presence: PresenceMode = "rooms",
    node: Node = NODE_COMMAND,
    json: Json = None,
) -> None:
    """Connections that are in 50 rooms each, as a client with many conversations is."""
    scenario = Talk(
        "many-rooms", connections, rooms=connections * 5, rooms_each=50, rate=rate, duration_s=seconds, samples=samples
    )
    _run(lambda stage, console: talk_scenario.run(scenario, stage, console), node, presence, json)


@app.command(name="reconnect-storm")
def reconnect_storm(
    members: Annotated[int, typer.Option(min=1, help="Clients in rooms of a hundred.")] = 10_000,
    missed: Annotated[int, typer.Option(min=0, help="Messages to each room while they are away.")] = 10,
    samples: Samples = 1,
    presence: PresenceMode = "rooms",
    node: Node = NODE_COMMAND,
    json: Json = None,
) -> None:
    """Everybody loses the connection at the same moment, misses messages, and comes back at the same moment."""
    scenario = Storm(members=members, missed=missed, samples=samples)
    _run(lambda stage, console: storm_scenario.run(scenario, stage, console), node, presence, json)


@app.command(name="presence-storm")
def presence_storm(
    connections: Annotated[int, typer.Option(min=1, help="Users who come online.")] = 5000,
    samples: Samples = 1,
    presence: PresenceMode = "all",
    node: Node = NODE_COMMAND,
    json: Json = None,
) -> None:
    """Users come online, into one room, as fast as the node lets them in. Goal: at most 0.1 Redis calls per join."""
    scenario = PresenceStorm(connections, samples)
    _run(lambda stage, console: presence_storm_scenario.run(scenario, stage, console), node, presence, json)


@app.command()
def slow(
    readers: Annotated[int, typer.Option(min=1, help="Members of the room that read.")] = 1000,
    stalled: Annotated[
        int, typer.Option(min=1, help="Members of the room that stop reading, in each second phase.")
    ] = 1,
    rate: Annotated[int, typer.Option(min=1, help="Messages per second offered to the room.")] = 50,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long a phase is.")] = 9,
    pairs: Annotated[int, typer.Option(min=1, help="Phases with and without stalled readers, in turns.")] = 4,
    presence: PresenceMode = "rooms",
    node: Node = NODE_COMMAND,
    json: Json = None,
) -> None:
    """What readers notice of others that read nothing, as a ratio within one run.

    Checks that every reader saw every message once and in order, and that the node cut every stalled one. Goals: p99 of
    the readers at most 1.05 x that of the phases without; the last stalled reader gone after 11 s; with 50 of them or
    more at most 300 KiB of memory for each.
    """
    scenario = Slow(readers, stalled, rate, seconds, pairs)
    _run(lambda stage, console: slow_scenario.run(scenario, stage, console), node, presence, json)


@app.command()
def soak(
    hours: Annotated[float, typer.Option(min=0.001, help="How long.")] = 1,
    connections: Annotated[int, typer.Option(min=1, help="Members of the room that stay.")] = 1000,
    rate: Annotated[int, typer.Option(min=1, help="Messages per second, into the log of the room.")] = 50,
    report: Annotated[Path, typer.Option(metavar="PATH", help="The page with the plots, written as it goes.")] = Path(
        "soak.html"
    ),
    presence: PresenceMode = "rooms",
    node: Node = NODE_COMMAND,
    json: Json = None,
) -> None:
    """Hours of the same load while others come, join and go, and Redis cuts the node's subscriber now and then.

    Checks that every member saw every message once and in order, and that memory of the node and of Redis, descriptors,
    tasks and connections do not grow. Plots them with rates and latencies.
    """
    scenario = Soak(hours, connections, rate)
    _run(lambda stage, console: soak_scenario.run(scenario, stage, console, report), node, presence, json)


@app.command()
def rolling(
    connections: Annotated[int, typer.Option(min=10, help="Clients in rooms of twenty, through nginx.")] = 1500,
    nodes: Annotated[int, typer.Option(min=2, help="Restarted one after the other.")] = 3,
    rate: Annotated[int, typer.Option(min=1, help="Messages per second, all members together.")] = 100,
    drain: Annotated[float, typer.Option(min=0, help="Seconds over which a node closes its connections.")] = 20,
    rebalance: Annotated[float, typer.Option(min=0, help="ROOMCAST_REBALANCE_PER_S of the nodes.")] = 0,
    json: Json = None,
) -> None:
    """A rolling restart behind nginx under load, with clients that follow the protocol's rules for coming back.

    Checks that every member saw every acknowledged message once and in order, and that three observers saw nobody come
    or go. Goal: reconnects peak at 1.5 x their mean, over windows of a second.
    """
    scenario = Rolling(connections, nodes, rate, drain, rebalance)
    _tell(lambda console: rolling_scenario.run(scenario, console), json)


@app.command()
def masters(
    counts: Annotated[
        str, typer.Option("--masters", help="How many, compared: 1 is a Redis without a cluster.")
    ] = "1,3",
    rooms: Annotated[
        int, typer.Option(min=1, help="Each with a publisher on one node and a member on the other.")
    ] = 300,
    rate: Annotated[int, typer.Option(min=1, help="Messages per second, all rooms together.")] = 3000,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long messages are published.")] = 10,
    json: Json = None,
) -> None:
    """The same load on one Redis and on Redis Cluster: CPU of each master, and how evenly rooms and users are spread.

    Nodes run on the first core, the masters on the last. Checks that every message reached the member on the other node
    once and in order.
    """
    scenario = Masters(tuple(int(count) for count in counts.split(",")), rooms, rate, seconds)
    _tell(lambda console: masters_scenario.run(scenario, console), json)


@app.command()
def cluster(
    subscribers: Annotated[int, typer.Option(min=4, help="Connections in the one room, on all nodes together.")] = 1000,
    rate: Annotated[int, typer.Option(min=1, help="Messages per second offered to the room.")] = 50,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each is measured.")] = 10,
    samples: Samples = 3,
    json: Json = None,
) -> None:
    """One room on 1, 2 and 4 nodes, and on 4 of which only one has members: the others must not hear a message."""
    scenario = Cluster(subscribers, rate, seconds, samples)
    _tell(lambda console: cluster_scenario.run(scenario, console), json)


@app.command()
def bench(
    json: Annotated[Path | None, typer.Option(metavar="PATH", help="Write all reports there; -: to stdout.")] = None,
    scale: Annotated[float, typer.Option(hidden=True, min=0.01)] = 1.0,
    node: Node = NODE_COMMAND,
) -> None:
    """All scenarios small, one after the other: a first idea of a machine in about two minutes."""
    plain = json is not None and str(json) == "-"
    console = Console(stderr=plain)
    try:
        results = bench_of_all.run(console, node=node, scale=scale)
    except SetupError as error:
        Console(stderr=True).print(f"not measured: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    console.print(bench_of_all.table_of(results, scale))
    for remark in bench_of_all.remarks_of(results):
        console.print(f"[yellow]note:[/] {remark}")
    if plain:
        print(dumps([report_of(result) for result in results], ensure_ascii=False))
    elif json is not None:
        json.write_text(dumps([report_of(result) for result in results], indent=2, ensure_ascii=False) + "\n")
    if any(result.faults() for result in results):
        raise typer.Exit(1)
