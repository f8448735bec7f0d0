"""Every example runs as its docstring says, as a process of its own or in this one, and does what it is for."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidHandshake, InvalidStatus

from roomcast import Hub, Settings
from server.application import load_hub
from server.minting import mint
from tests.handlers.world import LANES, SECRET, connected, running
from tests.support.features import covers
from tests.support.node import NodeServer

ROOT = Path(__file__).resolve().parents[2]
lanes = pytest.mark.parametrize("lane", LANES)


def fresh(name: str) -> Any:
    """The example's module as a new process would see it: with a hub that nobody has bound yet."""
    sys.modules.pop(name, None)
    return importlib.import_module(name)


@lanes
@covers("B23", "B4")
async def test_the_chat_keeps_a_history_and_says_nothing_blank(lane: str) -> None:
    module = fresh("examples.chat")
    async with running(module.hub, lane=lane) as node:
        async with node.client("/chat/lobby", user="ann") as ann, node.client("/chat/lobby", user="bob") as bob:
            await ann.say({"type": "message", "text": "  "})
            await ann.say({"type": "message", "text": "hello"})
            said = {"type": "message", "user": "ann", "text": "hello"}
            assert await ann.frame() == await bob.frame() == said
        async with node.client("/chat/lobby", user="eve") as late:
            assert await late.frame() == said
        async with node.member("eve", "chat:lobby") as eve:
            assert (await eve.ask("message", room="chat:lobby", data={"text": " "}))["message"] == "say something"
            await eve.say({"op": "message", "room": "chat:lobby", "data": {"text": "WHAT"}})
            assert (await eve.frame())["data"] == {"type": "message", "user": "eve", "text": "what"}


@covers("N15", "G9", "B23")
def test_the_page_of_the_chat_derives_its_url_and_sends_nothing_blank() -> None:
    page = (ROOT / "examples/chat.html").read_text()
    assert "location.href.replace(/^http/, 'ws')" in page, "https pages get wss"
    for step in (
        "if (!text.value.trim()) return",
        "ws.onmessage",
        "JSON.parse",
        "throw new Error(`Unknown message type",
    ):
        assert step in page


@lanes
async def test_notifications_live_inside_fastapi(lane: str) -> None:
    module = fresh("examples.notifications")
    hub: Hub = module.hub
    hub._settings = Settings(dev=True)
    async with running(hub, lane=lane, app=module.app, under="/live") as node:
        async with node.client("/notifications", user=7) as client:
            assert await client.frame() == {"event": "welcome", "user": 7}
            await client.say({"event": "read"})
            assert await client.frame() == {"event": "counted", "read": 1}

            def ship() -> bytes:
                request = urllib.request.Request(f"http://127.0.0.1:{node.port}/orders/5", method="POST")
                with urllib.request.urlopen(request, timeout=5) as response:
                    body: bytes = response.read()
                    return body

            assert json.loads(await asyncio.to_thread(ship)) == {"order": 5}
            assert await client.frame() == {"event": "shipped", "order": 5}
        async with node.client("/notifications") as nobody:
            assert (await nobody.closed())[0] == 4001


@lanes
@covers("X14", "X15", "A20")
async def test_the_admin_room_is_for_admins(lane: str) -> None:
    settings = Settings(secret=SECRET)  # type: ignore[arg-type]  # pydantic makes the SecretStr
    tokens = {name: mint(settings, name, "1h", [], False) for name in ("root", "ann", "stranger")}
    async with running(fresh("examples.admin").hub, lane=lane, secret=SECRET) as node:
        async with node.client("/ws", token=tokens["ann"]) as ann, node.client("/ws", token=tokens["root"]) as root:
            await ann.frame()
            await root.frame()
            assert (await ann.ask("join", room="admin:log"))["code"] == "forbidden"
            assert (await root.ask("join", room="admin:log"))["ok"]
            with pytest.raises(InvalidStatus):
                async with node.client("/admin/kick", token=tokens["ann"]):
                    pass
            async with node.client("/admin/kick", token=tokens["root"]) as kick:
                await kick.say({"user": "ann"})
                assert await kick.frame() == {"kicked": "ann"}
            assert (await ann.closed())[0] == 4004
            assert (await root.frame())["data"] == {"kicked": "ann", "by": "root"}
        for name in ("ann", "stranger"):
            async with node.client("/ws", token=tokens[name]) as refused:
                assert (await refused.closed())[0] == 4001


@lanes
@covers("G1", "G8")
async def test_the_yaml_bot(lane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    hub = load_hub(str(ROOT / "examples/bot.yaml"))
    async with running(hub, lane=lane) as node, node.client("/pingbot", origin="http://localhost:3000") as client:
        assert await client.hear() == "Say something."
        for number in (1, 2):
            await client.say("Hello world")
            assert await client.hear() == f"Got message {number}: Hello world"


@pytest.mark.system
@covers("A1", "A2", "N14")
async def test_serve_loads_an_application_and_starts_it_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "small_app.py"
    template = (
        'from roomcast import Hub\nhub = Hub()\n@hub.on_connect("/v")\nasync def v(conn): await conn.send("{}")\n'
    )
    source.write_text(template.format("one"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    class Elsewhere(NodeServer):
        def launch(self) -> None:
            import os

            environ = {k: v for k, v in os.environ.items() if not k.startswith("ROOMCAST_")}
            environ |= {f"ROOMCAST_{k.upper()}": str(v) for k, v in {"port": self.port, **self.settings}.items()}
            with open(self.directory / "log", "ab") as log:
                command = [sys.executable, "-m", "server", "serve"]
                self.process = subprocess.Popen(
                    command, cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )

    async def said(node: NodeServer) -> str:
        async with connected(f"ws://127.0.0.1:{node.port}/v") as client:
            return str(await client.hear())

    node = Elsewhere(app="small_app:hub")
    node.launch()
    try:
        await node.wait_ready()
        assert await said(node) == "one"
        source.write_text(template.format("number two"))
        async with asyncio.timeout(30):
            while True:
                try:
                    if await said(node) == "number two":
                        break
                except (OSError, ConnectionClosedError, InvalidHandshake):
                    await asyncio.sleep(0.05)  # another process: it is being started again
    finally:
        assert node.process is not None
        node.process.terminate()
        assert await asyncio.to_thread(node.process.wait, 20) == 0
    assert "a file has changed" in node.log


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("small_app", "write module:hub"),
        ("no_such_module_here:hub", "there is no module"),
        ("json:hub", "has no roomcast.Hub named hub"),
        ("nowhere.yaml", "cannot read"),
    ],
)
def test_an_application_that_cannot_be_loaded_is_one_line(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(Exception, match=said) as error:
        load_hub(name)
    assert "\n" not in str(error.value)


def readme_example() -> str:
    section = (ROOT / "README.md").read_text().split("## Use it from Python", 1)[1]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


@lanes
async def test_the_readmes_forty_lines(lane: str) -> None:
    source = readme_example()
    assert len(source.splitlines()) <= 40
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(source, "README.md", "exec"), names)
    hub: Hub = names["hub"]
    async with running(hub, lane=lane, dev=False) as node:
        keys = {"ann": {"x-api-key": "key-of-ann"}, "bob": {"x-api-key": "key-of-bob"}}
        async with node.client("/ws", keys["ann"]) as ann, node.client("/ws", keys["bob"]) as bob:
            assert ((await ann.frame())["user_id"], (await bob.frame())["user_id"]) == ("ann", "bob")
            assert (await ann.ask("join", room="team:blue"))["ok"] and (await bob.ask("join", room="lobby"))["ok"]
            assert (await bob.ask("join", room="team:blue"))["code"] == "forbidden"
            await ann.say({"op": "message", "room": "team:blue", "data": {"text": "hi"}})
            assert (await ann.frame())["data"] == {"text": "hi", "from": "Ann"}
            async with node.client("/tickets/7", keys["ann"]) as a, node.client("/tickets/7", keys["bob"]) as b:
                assert await a.hear() == "ann is here"
                assert await b.hear() == "bob is here"
                assert await a.hear() == "bob is here"
                await b.say("done")
                assert await a.hear() == await b.hear() == "bob: done"
        async with node.client("/ws") as nobody:
            assert (await nobody.closed())[0] == 4001
