"""What an answer that is no 101 says about the proxy on the way. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from server.check.report import Trouble

UPGRADE: Final = (
    "nginx, where it passes on to the nodes: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    "proxy_set_header Connection $connection_upgrade; (with the map of $http_upgrade from deploy/nginx/nginx.conf)"
)
HTTP_VERSION: Final = "nginx: proxy_http_version 1.1; its default 1.0 knows no upgrade"
HOST: Final = "nginx: proxy_set_header Host $http_host; or name the page's origin in ROOMCAST_ORIGINS"
ORIGINS: Final = "name it in ROOMCAST_ORIGINS, as the browser does: scheme, host and port"
HIDE: Final = "nginx: location ~ ^/(metrics|api|status|readyz)(/|$) { return 404; }"
TIMEOUT: Final = "nginx: proxy_read_timeout 75s; proxy_send_timeout 75s; both must be longer than the nodes' ping"
HEADERS: Final = "nginx: large_client_header_buffers 4 16k; a token in the query may be 8 KiB"
TRUST: Final = "nginx: ssl_certificate must name the whole chain (fullchain.pem) of a certificate that clients trust"
UPSTREAM: Final = "nginx: proxy_pass and the addresses in upstream"
KNOWN: Final[Mapping[int, tuple[str, str]]] = {
    401: ("the proxy asks for credentials of its own", "nginx: no auth_basic where the WebSocket is"),
    403: ("something on the way forbids it", "nginx: deny and allow; or a firewall's rules for WebSockets"),
    404: (
        "nothing is served there",
        "nginx: a location for this path, with a proxy_pass that leaves it as it is",
    ),
    413: ("it is too large for the proxy", HEADERS),
    414: ("the query is too long for the proxy", HEADERS),
    429: ("a limit was met", "nginx: limit_req and limit_conn (deploy/nginx/limits.conf), or the nodes' own limits"),
    431: ("the headers are too large for the proxy", HEADERS),
    502: ("the proxy reaches no node, or the node hung up", f"{UPSTREAM}; do the nodes run?"),
    503: ("nobody takes connections", "are the nodes ready (/readyz at each)? nginx: limit_conn answers so, too"),
    504: ("the nodes do not answer the proxy in time", f"{UPSTREAM}; is a firewall between?"),
}
"""Status -> what it means for a handshake, what to look at."""


class Answer(NamedTuple):
    """An HTTP response; names of headers in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The beginning of the body, for people."""
        return " ".join(self.body[:160].decode("utf-8", "replace").split())

    @property
    def of_a_node(self) -> bool:
        """A node's own words, not a page that the proxy made."""
        return "html" not in self.headers.get("content-type", "")


def no_upgrade(answer: Answer) -> Trouble:
    """Why a handshake was answered so, as far as it can be seen."""
    status = answer.status
    if status == 426:
        return _not_asked_for(answer)
    if status in (301, 302, 303, 307, 308):
        where = answer.headers.get("location", "elsewhere")
        return Trouble(f"a redirect ({status}) to {where}", "use that address: clients do not follow a redirect")
    if status == 400 and b"HTTPS port" in answer.body:
        return Trouble("this port speaks TLS", "use https:// or wss://")
    if status == 400 and answer.of_a_node:
        return Trouble(f"the handshake reached the node damaged (400): {answer.text}", HTTP_VERSION)
    if status in KNOWN:
        what, advice = KNOWN[status]
        return Trouble(f"{what} ({status}): {answer.text}" if answer.text else f"{what} ({status})", advice)
    if status == 200:
        return Trouble("something else answers (200), no node", "nginx: server_name, and the location of this path")
    return Trouble(f"the handshake was answered with {status}: {answer.text}", UPGRADE)


def _not_asked_for(answer: Answer) -> Trouble:
    """A node says in JSON what it missed (server/upgrade.py)."""
    try:
        told = json.loads(answer.body)
        missing, version = [str(name) for name in told["missing"]], str(told["http_version"])
    except (ValueError, KeyError, TypeError):
        return Trouble(f"the request for an upgrade did not get through (426): {answer.text}", UPGRADE)
    without = " and ".join(f"the header {name}" for name in missing) or "an upgrade"
    return Trouble(f"the handshake came to the node over HTTP/{version} without {without}", UPGRADE)
