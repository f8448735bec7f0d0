"""``roomcast token``: what it mints, a node takes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from server.auth import Authenticator
from server.minting import mint
from server.settings import Settings, SettingsError

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a secret of at least thirty-two characters"
SETTINGS = Settings(secret=SecretStr(SECRET), audience="roomcast", issuer="https://id.example")


async def test_a_node_takes_it() -> None:
    node = Authenticator(dev=False, secret=SECRET, audience="roomcast", issuer="https://id.example")
    identity = await node.verify(mint(SETTINGS, "42", "15m", ["chat:*=join,publish", "news=join"], True))
    assert identity.user == "42" and identity.token_id and identity.grants.broadcast
    assert identity.grants.allows("chat:a", "publish") and not identity.grants.allows("news", "publish")
    assert identity.expires_at == pytest.approx(time.time() + 900, abs=3)
    free = await node.verify(mint(SETTINGS, "ann", "1h", [], False))
    assert free.user == '"ann"' and free.grants.allows("any", "publish") and free.token_id != identity.token_id


@pytest.mark.parametrize(
    ("user", "ttl", "grants", "said"),
    [
        ("no spaces", "1h", [], "not a user id"),
        ("ann", "soon", [], "a time is"),
        ("ann", "1h", ["chat:*=own"], "claim rooms"),
        ("ann", "1h", ["chat:*"], "grants nothing"),
    ],
)
def test_a_mistake_is_one_line(user: str, ttl: str, grants: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        mint(SETTINGS, user, ttl, grants, False)


def test_without_the_secret_there_is_no_token() -> None:
    with pytest.raises(SettingsError, match="ROOMCAST_SECRET"):
        mint(Settings(), "ann", "1h", [], False)


def test_the_command_prints_it() -> None:
    command = [sys.executable, "-m", "server", "token", "ann", "--ttl", "15m", "--room", "a=join"]
    run = subprocess.run(command, cwd=ROOT, env={"ROOMCAST_SECRET": SECRET}, capture_output=True, text=True, timeout=20)
    assert run.returncode == 0, run.stderr
    identity = asyncio.run(Authenticator(dev=False, secret=SECRET).verify(run.stdout.strip()))
    assert identity.user == '"ann"' and identity.grants.allows("a", "join")
