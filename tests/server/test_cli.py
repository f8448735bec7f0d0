"""The command line, as a user meets it: a process, its exit code, its one line."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from server.cli import main
from server.cli.entry import app
from server.settings import Settings
from tests.support.redis_server import RedisServer, free_port
from tests.support.waiting import eventually_sync

ROOT = Path(__file__).resolve().parents[2]
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("ROOMCAST_")}


def roomcast(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env=ENVIRON | {"COLUMNS": "200", "NO_COLOR": "1"} | (environ or {}),
        capture_output=True,
        text=True,
        timeout=20,
    )


Refusal = Callable[..., str]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], logging_as_before: None) -> Refusal:
    """Gives the one line of a command that could not do what was asked. In this process, to be quick."""

    def run(*arguments: str, environ: dict[str, str] | None = None) -> str:
        monkeypatch.setattr(os, "environ", ENVIRON | (environ or {}))
        monkeypatch.setattr(sys, "argv", ["roomcast", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert (end.value.code, printed.out) == (2, "")
        (line,) = printed.err.splitlines()
        return line.removeprefix("roomcast: ")

    return run


def test_help_names_every_setting_with_its_group_and_its_other_spellings() -> None:
    text = roomcast("serve", "--help").stdout
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.title and f"─ {field.title} ─" in text
    assert "roomcast serve --dev" in text
    assert "ROOMCAST_PING_S" in text and "(64" not in text and "(65536)" in text


def test_every_command_but_serve_has_json_and_an_example() -> None:
    commands = {str(command.callback.__name__) for command in app.registered_commands if command.callback is not None}
    assert commands >= {
        "publish",
        "tail",
        "presence",
        "rooms",
        "nodes",
        "history",
        "disconnect",
        "token",
        "check",
        "bench",
    }
    for name in commands - {"serve"}:
        text = roomcast(name, "--help", environ={"COLUMNS": "120"}).stdout
        assert re.search(r"(?m)^│ --json ", text), name
        assert re.search(rf"(?m)^ (ROOMCAST_SECRET=… )?roomcast {name}\b", text), name


def test_without_a_command_the_help_is_shown() -> None:
    result = roomcast()
    assert result.returncode == 2 and "serve" in result.stdout + result.stderr
    assert "roomcast:" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["serve", "--prot", "1"], {}, "No such option: --prot"),
        (["serve"], {"ROOMCAST_PROT": "1"}, "ROOMCAST_PROT is not a setting: did you mean ROOMCAST_PORT?"),
        (["serve", "--dev", "--port", "70000"], {}, "--port=70000: must be a whole number from 0 to 65535"),
        (["serve"], {}, "nobody could connect: set ROOMCAST_SECRET"),
        (["serve", "--dev", "--broker", "http://x"], {}, "no broker for 'http': use memory://, redis://"),
        (["serve", "--dev", "--host", "192.0.2.1"], {}, "192.0.2.1 is no address of this machine: set --host"),
        (["serve", "--dev", "--host", "no such host"], {}, "'no such host' is no address of this machine"),
        (["serve", "--config", "/nowhere.yaml"], {}, "cannot read the configuration /nowhere.yaml"),
        (["serve", "--dev", "--broker", "redis://h", "--broker-password-file", "/no"], {}, "cannot read the broker's"),
        (["publish", "lobby"], {}, "Missing argument 'data'. (`roomcast publish --help` lists what there is)"),
        (["rooms", "--limit", "3"], {}, "No such option: --limit (`roomcast rooms --help`"),
        (["chekc"], {}, "No such command 'chekc'. Did you mean 'check'? (`roomcast --help`"),
        (["token", "alice"], {}, "a token is signed with ROOMCAST_SECRET, the one of your nodes: set it"),
        (["token", "alice", "--room", "chat"], {"ROOMCAST_SECRET": "s" * 32}, "'chat' grants nothing"),
        (["disconnect", "--broker", "redis://h"], {}, "say whom to disconnect"),
        (["nodes", "--broker", "http://x"], {}, "no broker for 'http'"),
        (["publish", "lobby", "{oops", "--broker", "redis://h"], {}, "the message is no JSON"),
        (["publish", "lobby", "NaN", "--broker", "redis://h"], {}, "the message is no JSON"),
        (["publish", "no such room", "1"], {}, "'no such room' is no room name"),
        (["publish", "lobby", "1"], {}, "memory:// lives inside one node: name the Redis"),
        (["tail", "__x"], {}, "'__x' is no room name"),
        (["tail", "lobby", "--broker", "redis://u:hunter2@127.0.0.1:1"], {}, "cannot use the broker redis://u:***@"),
        (["nothing"], {}, "No such command 'nothing'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    refusal: Refusal, arguments: list[str], environ: dict[str, str], said: str
) -> None:
    line = refusal(*arguments, environ=environ)
    assert line.startswith(said)
    assert "hunter2" not in line


def test_a_port_in_use_is_told_before_anything_starts(refusal: Refusal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refusal("serve", "--dev", "--port", str(port))
        assert line == f"port {port} on 127.0.0.1 is in use: stop what listens there or choose another --port"


def test_the_module_and_the_command_are_one() -> None:
    result = roomcast("serve", "--prot", "1")
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)


def test_a_node_serves_says_where_and_leaves_when_told(tmp_path: Path) -> None:
    port = free_port()
    output = tmp_path / "out"
    with output.open("wb") as out:
        node = subprocess.Popen(
            [sys.executable, "-m", "server", "serve", "--dev", "--port", str(port)],
            cwd=ROOT,
            env=ENVIRON | {"PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=out,
        )
    try:
        eventually_sync(lambda: node.poll() is not None or f"ws://localhost:{port}/ws?user=alice" in output.read_text())
        eventually_sync(lambda: node.poll() is not None or _listens(port))
        node.send_signal(signal.SIGINT)
        node.wait(10)
    finally:
        node.kill()
        node.wait(10)
    text = output.read_text()
    assert f"http://localhost:{port}/demo" in text
    assert "Traceback" not in text


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.redis
def test_a_wrong_password_is_told_and_a_password_file_heals_it(refusal: Refusal, tmp_path: Path) -> None:
    with RedisServer() as server:
        server.command("CONFIG", "SET", "requirepass", "right")
        url = f"redis://:hunter2@127.0.0.1:{server.port}"
        line = refusal("serve", "--dev", "--port", str(free_port()), "--broker", url)
        assert line.startswith(f"Redis at redis://:***@127.0.0.1:{server.port} refuses this login")
        assert "WRONGPASS" not in line and "hunter2" not in line
        assert "refuses user name or password" in refusal("publish", "r", "1", "--broker", url)

        password = tmp_path / "password"
        password.write_text("right\n")
        published = roomcast("publish", "r", "1", "--broker", url, "--broker-password-file", str(password))
        assert published.returncode == 0, published.stderr


def test_the_version_is_that_of_the_distribution() -> None:
    assert roomcast("--version").stdout.strip() == version("roomcast")
