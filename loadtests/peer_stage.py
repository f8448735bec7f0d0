"""One server on stage with its load client and publisher: a peer with what it needs beside it, a node, the C loop."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtests.accounting import family, rss_bytes
from loadtests.errors import SetupError
from loadtests.peer import Peer
from loadtests.processes import Child, Native, free_port, wait_for_port
from loadtests.result import FAULTS
from loadtests.sampling import Window
from loadtests.stage import CHANNEL, IN_FLIGHT, KINDS, ROOM, START_S, Server, Stage

SETTLE_S: Final = 0.2
"""Waited after the last message before counting, so that a late double is still seen."""
KEPT_UP: Final = 0.98
FULL: Final = 0.95
"""CPU of its core from which on a server is taken to have nothing left."""
PATIENCE_S: Final = 90.0
"""How long an overloaded server may take to deliver what it was sent."""


@dataclass(frozen=True)
class Offer:
    """What became of ``rate`` messages/s for a while."""

    rate: float
    members: int
    figures: dict[str, float]
    """``deliveries_per_s``, the Window's, the client's; the faults are those of this offer alone."""

    @property
    def kept_up(self) -> bool:
        return self.figures["deliveries_per_s"] >= KEPT_UP * self.rate * self.members

    @property
    def full(self) -> bool:
        return self.figures["cpu_share"] >= FULL

    @property
    def clean(self) -> bool:
        return not any(self.figures[name] for name in FAULTS if name in self.figures)

    @property
    def overloaded(self) -> bool:
        """It was asked for more than it can do, as its core shows."""
        return self.full or (not self.kept_up and self.figures["cpu_share"] >= FULL / 2)

    @property
    def faults(self) -> dict[str, float]:
        """What was lost and the like although the server was not overloaded."""
        return {} if self.overloaded else {name: self.figures[name] for name in FAULTS if self.figures.get(name)}


class Session:
    """A fresh server, and the load for it."""

    def __init__(
        self, stage: Stage, server: Server, client: Native, publisher: Native, channel: str, others: list[Child]
    ) -> None:
        self._stage = stage
        self._server = server
        self._client = client
        self._publisher = publisher
        self._channel = channel
        self._others = others
        self._members = 0
        self._before = dict.fromkeys(FAULTS, 0.0)
        self.faults: dict[str, float] = {}
        """Of all that was offered without overloading it."""

    def join(self, count: int) -> None:
        """So many more members."""
        self._client.ask(f"open {count} {IN_FLIGHT}", timeout_s=60 + count / 50)
        self._members += count
        if (heard := self._stage.subscribed(self._channel)) != 1:
            raise SetupError(f"{heard} connections to Redis hear the room, not one, after the joins")

    def offer(self, rate: float, seconds: float) -> Offer:
        """Publish for so long, wait until all has arrived or nothing does any more, and count."""
        count = max(1, round(rate * seconds))
        self._client.ask("reset", timeout_s=10)
        pids = family(self._server.child.pid)
        window = Window(lambda: pids, self._stage)
        published = self._publisher.ask(f"publish {count} {rate:.3f} 0", timeout_s=PATIENCE_S + seconds)
        self._client.ask(f"reach {published['last']}", timeout_s=PATIENCE_S)
        used = window.close()
        time.sleep(SETTLE_S)
        seen = self._client.ask(f"report {published['last']}", timeout_s=30)
        for child in self._others:
            child.check()
        deliveries = seen["deliveries"]
        arrived_per_s = deliveries / seen["span_s"] if seen["span_s"] else 0.0
        figures = {
            **seen,
            **used,
            "deliveries_per_s": min(arrived_per_s, rate * self._members),
            "cpu_us_per_delivery": used["cpu_s"] * 1e6 / deliveries if deliveries else 0.0,
            "bytes_per_delivery": seen["bytes"] / deliveries if deliveries else 0.0,
            "rss_mib": sum(map(rss_bytes, pids)) / 2**20,
        }
        for name in self._before:
            total = seen.get(name, 0.0)
            figures[name], self._before[name] = total - self._before[name], total
        offer = Offer(rate, self._members, figures)
        for name, faults in offer.faults.items():
            self.faults[name] = self.faults.get(name, 0.0) + faults
        return offer


@contextmanager
def session(stage: Stage, subject: str | Peer, words: dict[str, str]) -> Iterator[Session]:
    """``subject``: ``node``, ``baseline`` or a peer, for whose commands ``words`` are (peer_packages.words_of).

    Raises :class:`SetupError` when it does not start or ends.
    """
    with ExitStack() as stack:
        if isinstance(subject, Peer):
            server, others = stack.enter_context(_running(stage, subject, words))
            client = stage.client(server, path=subject.path, dialect=subject.dialect)
            publisher, channel = stage.publisher("bare"), ROOM
        else:
            kind = next(kind for kind in KINDS if kind == subject)
            server, others = stack.enter_context(stage.server(kind)), []
            client, publisher, channel = stage.client(server), stage.publisher("publish"), CHANNEL
        yield Session(
            stage, server, stack.enter_context(client), stack.enter_context(publisher), channel, [server.child, *others]
        )


@contextmanager
def _running(stage: Stage, peer: Peer, words: dict[str, str]) -> Iterator[tuple[Server, list[Child]]]:
    """The peer on the server's core and, beside the load, its second server and the bridge."""
    stage.empty_redis()
    port, second_port = free_port(), free_port()
    words = {
        **words,
        "second_port": str(second_port),
        "redis_port": str(stage.redis_port),
        "redis_url": f"redis://127.0.0.1:{stage.redis_port}",
        "folder": str(stage.folder),
    }
    shared = {"PEER_REDIS_URL": words["redis_url"], "PYTHONPATH": str(_import_folder(stage.folder))}
    stage.folder.chmod(0o755)  # nginx' workers are not root

    def start(name: str, command: tuple[str, ...], port: int, core: int | None) -> Child:
        own = {**words, "port": str(port)}
        if peer.configuration is not None:
            own["conf"] = str(_configured(peer.configuration, own, stage.folder))
        environment = {**shared, **{name: value.format_map(own) for name, value in peer.environment}}
        filled = [word.format_map(own) for word in command]
        return stack.enter_context(Child(name, filled, folder=stage.folder, core=core, environment=environment))

    with ExitStack() as stack:
        child = start(peer.name, peer.server, port, stage.server_core)
        wait_for_port(port, child, timeout_s=START_S)
        others = []
        if peer.second:
            others.append(start(f"second {peer.name}", peer.server, second_port, stage.load_core))
            wait_for_port(second_port, others[0], timeout_s=START_S)
        if peer.bridge:
            others.append(start(f"bridge to {peer.name}", peer.bridge, port, stage.load_core))
            _wait_for_bridge(stage, others[-1])
        yield Server(peer.name, child, port), others


def _wait_for_bridge(stage: Stage, bridge: Child) -> None:
    deadline_s = time.monotonic() + START_S
    while not stage.subscribed(ROOM):
        bridge.check()
        if time.monotonic() > deadline_s:
            raise SetupError(f"the {bridge.name} hears nothing after {START_S:.0f} s:\n{bridge.log_tail()}")
        time.sleep(0.02)


def _configured(name: str, words: dict[str, str], folder: Path) -> Path:
    text = (Path(__file__).parent / "peers" / name).read_text()
    path = folder / f"{words['port']}-{name}"
    path.write_text(re.sub(r"@(\w+)@", lambda match: words[match[1]], text))
    return path


def _import_folder(folder: Path) -> Path:
    """Where a python with packages of its own finds ``loadtests`` and nothing else of ours."""
    path = folder / "import"
    if not path.exists():
        path.mkdir()
        (path / "loadtests").symlink_to(Path(__file__).parent)
    return path
