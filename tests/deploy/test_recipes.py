"""The proxy recipes of the reference documents, in the nginx configuration that deploy/ has (tests/deploy/test_nginx.py
runs it)."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from server.settings import Settings
from tests.support.features import covers

ROOT = Path(__file__).resolve().parents[2]


def directives() -> dict[str, list[str]]:
    """Name -> what stands after it, of all the files."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "deploy/nginx").glob("*.conf")):
        text = re.sub(r"#.*", "", path.read_text())
        for name, value in re.findall(r"^\s*(\S+)\s+([^;{}]+);", text, re.MULTILINE):
            found.setdefault(name, []).append(" ".join(value.split()))
    return found


@covers("N16", "A37", "G10")
@pytest.mark.parametrize(
    ("directive", "value"),
    [
        ("proxy_http_version", "1.1"),
        ("proxy_set_header", "Upgrade $http_upgrade"),
        ("proxy_set_header", "Connection $connection_upgrade"),
        ("proxy_set_header", "Host $http_host"),
        ("proxy_set_header", "X-Forwarded-For $remote_addr"),
        ("proxy_set_header", "X-Forwarded-Proto $scheme"),
        ("default", "upgrade"),
    ],
)
def test_nginx_passes_the_upgrade_on(directive: str, value: str) -> None:
    assert value in directives()[directive]


@covers("A37")
def test_an_idle_connection_outlives_the_read_timeout() -> None:
    """The reference sets an hour; here nodes ping, and the timeout need only be longer than that."""
    [timeout] = directives()["proxy_read_timeout"]
    assert int(timeout.removesuffix("s")) > 3 * Settings().ping_s


PAGE = """
import assert from 'node:assert';
const heard = [], opened = [];
globalThis.location = new URL(process.argv[1]);
globalThis.document = new EventTarget();
globalThis.addEventListener = () => {};
globalThis.WebSocket = class { constructor(url) { opened.push(String(url)); } send() {} close() {} };
const { roomcast } = await import(process.argv[2]);
roomcastWS('/chat/lobby');
document.addEventListener('roomcast:broadcast', (e) => heard.push(e.detail));
let socket;
class Socket { constructor() { socket = this; } send() {} close() {} }
const client = roomcast('wss://app.example/ws', { WebSocket: Socket });
await new Promise((resolve) => setTimeout(resolve, 20));
const say = (frame) => socket.onmessage({ data: JSON.stringify(frame) });
socket.onopen?.();
say({ op: 'welcome', version: 1, session: 's'.repeat(22), node: 'n', user_id: 1, ping: 10, max_message: 65536 });
say({ op: 'broadcast', type: 'presence', user_id: 42, status: 'online' });
client.close?.();
console.log(JSON.stringify({ opened, heard }));
process.exit(0);
"""


@covers("A19", "A38", "N15")
@pytest.mark.parametrize(("page", "scheme"), [("https://app.example/a/b", "wss"), ("http://app.example/", "ws")])
def test_a_page_gets_native_events_and_the_right_url(page: str, scheme: str) -> None:
    """Under the project's own names: ``roomcast:broadcast`` on the document, ``roomcastWS(path)`` on the window."""
    client = (ROOT / "server/static/roomcast.js").as_uri()
    run = subprocess.run(
        ["node", "--input-type=module", "-e", PAGE, "--", page, client], capture_output=True, text=True, timeout=20
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["opened"] == [f"{scheme}://app.example/chat/lobby"]
    assert told["heard"] == [{"op": "broadcast", "type": "presence", "user_id": 42, "status": "online"}]
