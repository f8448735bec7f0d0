"""compose.yaml as docker-compose reads it: accepted, hardened, and built from files that exist."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.settings import PREFIX, load_settings

pytestmark = pytest.mark.compose

ROOT = Path(__file__).resolve().parents[2]


def config(directory: Path, **filled_in: str) -> subprocess.CompletedProcess[str]:
    """``docker-compose config`` with .env.example filled in like this."""
    example = (ROOT / ".env.example").read_text()
    for name, value in filled_in.items():
        example, found = re.subn(rf"(?m)^{name}=.*$", f"{name}={value}", example)
        assert found == 1, f"{name} is not in .env.example"
    (directory / "env").write_text(example)
    environ = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "REDIS_"))}
    return subprocess.run(
        ["docker-compose", "-f", str(ROOT / "compose.yaml"), "--env-file", str(directory / "env"), "config"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=25,
    )


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    result = config(tmp_path_factory.mktemp("compose"), REDIS_PASSWORD="abc", ROOMCAST_SECRET="s" * 32)
    assert result.returncode == 0, result.stderr
    services: dict[str, Any] = yaml.safe_load(result.stdout)["services"]
    return services


def test_without_a_password_it_says_what_to_do(tmp_path: Path) -> None:
    result = config(tmp_path)
    assert result.returncode != 0
    assert "copy .env.example to .env and set it" in result.stderr


def test_a_node_understands_its_environment(services: dict[str, Any]) -> None:
    environment = {name: str(value) for name, value in services["node"]["environment"].items()}
    settings = load_settings({}, environment)
    assert settings.broker == "redis://:abc@redis:6379/0"
    assert settings.secret is not None and not settings.dev
    grace_s = int(services["node"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > settings.drain_s


def test_what_the_proxy_says_about_a_client_is_believed_only_from_its_network(tmp_path: Path) -> None:
    result = config(tmp_path, REDIS_PASSWORD="abc", FRONT_SUBNET="10.9.8.0/24")
    whole = yaml.safe_load(result.stdout)
    assert whole["networks"]["front"]["ipam"]["config"] == [{"subnet": "10.9.8.0/24"}]
    assert whole["services"]["node"]["environment"]["ROOMCAST_TRUSTED_PROXIES"] == "10.9.8.0/24"
    members = {name for name, service in whole["services"].items() if "front" in service["networks"]}
    assert members == {"nginx", "node"}


def test_only_nginx_is_published(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if service.get("ports")] == ["nginx"]


def test_every_service_is_hardened(services: dict[str, Any]) -> None:
    assert set(services) == {"nginx", "node", "redis", "prometheus"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_redis_keeps_what_it_has_and_evicts_nothing(services: dict[str, Any]) -> None:
    command = services["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--appendonly"] == "yes"
    assert options["--requirepass"] == "abc"


def test_everything_that_is_mounted_or_built_exists(services: dict[str, Any]) -> None:
    for service in services.values():
        for volume in service.get("volumes", []):
            source, _, _ = str(volume).partition(":")
            if source.startswith("/"):
                assert Path(source).is_file(), source
    build = services["node"]["build"]
    dockerfile = Path(build["context"], build["dockerfile"]).read_text()
    for line in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", dockerfile):
        for source in line.split():
            assert Path(build["context"], source).exists(), f"the Dockerfile copies {source}"
            assert f"!{source}\n" in (ROOT / ".dockerignore").read_text(), f".dockerignore leaves out {source}"


def test_nginx_gets_the_files_its_configuration_includes(services: dict[str, Any]) -> None:
    mounted = {str(volume).split(":")[1] for volume in services["nginx"]["volumes"]}
    included = set()
    for path in (ROOT / "deploy" / "nginx" / "nginx.conf", ROOT / "deploy" / "nginx" / "roomcast.conf"):
        included |= set(re.findall(r"(?m)^\s*include (\S+);", path.read_text()))
    assert mounted == {f"/etc/roomcast/{name}" for name in included | {"nginx.conf"}}
    assert "/etc/roomcast/nginx.conf" in services["nginx"]["command"]
