"""Which servers are measured beside a node, how each is started and joined, and in what it differs. Pure.

In commands and environments these words are filled in: ``{port}`` the server's own, ``{second_port}`` the second one's,
 ``{redis_url}``, ``{conf}`` the configuration filled in for this port, ``{here}`` the python that runs this,
``{python}`` one with the peers' packages, ``{npm}`` the folder with the packages of npm and the scripts, ``{nginx}``,
``{centrifugo}`` the given binary, ``{peers}`` the folder loadtests/peers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loadtests.stage import Dialect

Source = Literal["here", "python", "npm", "nchan", "centrifugo"]
"""Where its programs come from: this project's own packages, PyPI, npm, Debian, a path."""

UVICORN = ("-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning", "--no-access-log")
UVLOOP = ("--loop", "uvloop", "--http", "httptools", "--backlog", "4096")


@dataclass(frozen=True)
class Peer:
    """One that can be measured."""

    name: str
    title: str
    package: str
    """Whose version is told, as its source names it."""
    source: Source
    dialect: Dialect
    path: str
    server: tuple[str, ...]
    published: str
    """How a message gets in."""
    differs: str
    """What it does that the other peers do not, or leaves out that one might expect."""
    bridge: tuple[str, ...] = ()
    """Beside the load: hears what is offered and publishes it in the peer's own way."""
    second: bool = False
    """A second server of the same installation stands beside the load, for the bridge to publish to."""
    configuration: str | None = None
    """Of loadtests/peers, with its @words@ filled in."""
    environment: tuple[tuple[str, str], ...] = ()


def _asgi(python: str, module: str) -> tuple[str, ...]:
    return (python, *UVICORN, *UVLOOP, f"loadtests.peers.{module}:app")


PEERS = (
    Peer(
        name="starlette",
        title="plain Starlette loop",
        package="starlette",
        source="here",
        dialect="greeted",
        path="/ws",
        server=_asgi("{here}", "starlette_loop"),
        published="Redis PUBLISH",
        differs="one room, all connections; a slow reader holds up everybody",
    ),
    Peer(
        name="broadcaster",
        title="broadcaster",
        package="broadcaster",
        source="python",
        dialect="greeted",
        path="/ws",
        server=_asgi("{python}", "broadcaster_app"),
        published="Redis PUBLISH",
        differs="a task and a queue without bound for each connection",
    ),
    Peer(
        name="python-socketio",
        title="python-socketio, Redis manager",
        package="python-socketio",
        source="python",
        dialect="socketio",
        path="/socket.io/?EIO=4&transport=websocket",
        server=_asgi("{python}", "socketio_app"),
        bridge=("{python}", "-m", "loadtests.peers.socketio_bridge"),
        published="its write-only manager",
        differs="rooms; no history, no recovery; encodes a message for each receiver",
    ),
    Peer(
        name="channels",
        title="Django Channels, pub/sub layer",
        package="channels",
        source="python",
        dialect="greeted",
        path="/ws",
        server=_asgi("{python}", "channels_app"),
        bridge=("{python}", "-m", "loadtests.peers.channels_bridge"),
        published="`group_send`",
        differs="groups; no history; runs a consumer for each receiver. Its default layer drops beyond 100 waiting",
    ),
    Peer(
        name="socket.io",
        title="Socket.IO, Redis adapter",
        package="socket.io",
        source="npm",
        dialect="socketio",
        path="/socket.io/?EIO=4&transport=websocket",
        server=("node", "{npm}/socketio.mjs", "{port}", "{redis_url}"),
        bridge=("node", "{npm}/socketio_bridge.mjs", "{redis_url}"),
        published="its Redis emitter",
        differs="rooms; no recovery with this adapter",
        environment=(("NODE_ENV", "production"),),
    ),
    Peer(
        name="ws",
        title="ws, a loop over its clients",
        package="ws",
        source="npm",
        dialect="greeted",
        path="/",
        server=("node", "{npm}/ws.mjs", "{port}", "{redis_url}"),
        published="Redis PUBLISH",
        differs="one room, all connections",
        environment=(("NODE_ENV", "production"),),
    ),
    Peer(
        name="nchan",
        title="Nchan, through Redis",
        package="libnginx-mod-nchan",
        source="nchan",
        dialect="bare",
        path="/sub",
        server=("{nginx}", "-e", "stderr", "-c", "{conf}"),
        bridge=("{here}", "-m", "loadtests.peers.nchan_bridge", "{second_port}"),
        second=True,
        configuration="nchan.conf",
        published="a WebSocket to a second nginx",
        differs="C; keeps a log (10 messages, 1 h) and resumes from it; channels by URL, one a connection",
    ),
    Peer(
        name="centrifugo",
        title="Centrifugo, Redis engine",
        package="centrifugo",
        source="centrifugo",
        dialect="centrifugo",
        path="/connection/websocket",
        server=("{centrifugo}", "--config", "{peers}/centrifugo.json"),
        bridge=("{here}", "-m", "loadtests.peers.centrifugo_bridge", "{second_port}"),
        second=True,
        environment=(
            ("CENTRIFUGO_HTTP_SERVER_PORT", "{port}"),
            ("CENTRIFUGO_ENGINE_REDIS_ADDRESS", "{redis_url}"),
        ),
        published="HTTP API of a second one, in batches",
        differs="Go; history and recovery can be had and are off here; may put several messages into a frame",
    ),
)


NAMES = tuple(peer.name for peer in PEERS)
