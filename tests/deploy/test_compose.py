"""compose.yaml as docker-compose reads it: accepted, hardened, and built from files that exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.configuration import PREFIX, load_settings
from server.settings import Settings

pytestmark = pytest.mark.compose

ROOT = Path(__file__).resolve().parents[2]


GIVEN = {"REDIS_PASSWORD": "abc", "GRAFANA_PASSWORD": "def", "ROOMCAST_SECRET": "s" * 32}


def config(directory: Path, *more_files: str, **filled_in: str) -> subprocess.CompletedProcess[str]:
    """``docker-compose config`` with .env.example filled in like this."""
    example = (ROOT / ".env.example").read_text()
    for name, value in filled_in.items():
        example, found = re.subn(rf"(?m)^{name}=.*$", f"{name}={value}", example)
        assert found == 1, f"{name} is not in .env.example"
    (directory / "env").write_text(example)
    environ = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "REDIS_"))}
    files = [word for name in ("compose.yaml", *more_files) for word in ("-f", str(ROOT / name))]
    return subprocess.run(
        ["docker-compose", *files, "--env-file", str(directory / "env"), "config"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=25,
    )


def read(directory: Path, *more_files: str, **filled_in: str) -> dict[str, Any]:
    """All that docker-compose makes of it."""
    result = config(directory, *more_files, **GIVEN | filled_in)
    assert result.returncode == 0, result.stderr
    whole: dict[str, Any] = yaml.safe_load(result.stdout)
    return whole


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    services: dict[str, Any] = read(tmp_path_factory.mktemp("compose"))["services"]
    return services


@pytest.mark.parametrize("missing", ["REDIS_PASSWORD", "GRAFANA_PASSWORD"])
def test_without_a_password_it_says_what_to_do(tmp_path: Path, missing: str) -> None:
    result = config(tmp_path, **GIVEN | {missing: ""})
    assert result.returncode != 0
    assert "copy .env.example to .env and set it" in result.stderr


def environment_of(node: dict[str, Any]) -> dict[str, str]:
    """What is set; None is what .env has not."""
    return {name: str(value) for name, value in node["environment"].items() if value is not None}


def test_a_node_understands_its_environment(services: dict[str, Any]) -> None:
    settings = load_settings({}, environment_of(services["node"]))
    assert settings.broker == "redis://roomcast:abc@redis:6379/0"
    assert settings.secret is not None and not settings.dev
    grace_s = int(services["node"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > settings.drain_s
    assert settings.rebalance_per_s > 0


NOT_FROM_ENV = {"host", "port", "node", "workers", "metrics_port", "prefix", "broker_password_file"}
"""The image's, the container's, or compose.yaml's own: another prefix needs other rights in deploy/redis/users.acl."""


def test_every_other_setting_can_be_made_in_the_env_file(services: dict[str, Any], tmp_path: Path) -> None:
    names = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields.keys() - NOT_FROM_ENV}
    missing = names - services["node"]["environment"].keys()
    assert not missing, f"add to the node's environment in compose.yaml: {sorted(missing)}"
    assert not services["node"]["environment"].keys() - names
    values = {"ROOMCAST_HISTORY": "chat:*=5/60/1MiB", "ROOMCAST_LOG_LEVEL": "", "ROOMCAST_REBALANCE_PER_S": "0"}
    settings = load_settings({}, environment_of(read(tmp_path, **values)["services"]["node"]))
    assert settings.history_of("chat:x").max_entries == 5
    assert (settings.log_level, settings.rebalance_per_s) == ("info", 0)


def test_what_the_proxy_says_about_a_client_is_believed_only_from_its_network(tmp_path: Path) -> None:
    whole = read(tmp_path, FRONT_SUBNET="10.9.8.0/24")
    assert whole["networks"]["front"]["ipam"]["config"] == [{"subnet": "10.9.8.0/24"}]
    assert whole["services"]["node"]["environment"]["ROOMCAST_TRUSTED_PROXIES"] == "10.9.8.0/24"
    members = {name for name, service in whole["services"].items() if "front" in service["networks"]}
    assert members == {"nginx", "node"}


def published(service: dict[str, Any]) -> set[str]:
    """``[address:]port:port inside``; docker-compose writes a port without an address as a mapping."""
    ports = service.get("ports", [])
    texts = (port if isinstance(port, str) else f"{port['published']}:{port['target']}" for port in ports)
    return {text.removesuffix("/tcp") for text in texts}


def test_only_nginx_is_published(services: dict[str, Any]) -> None:
    ports = {name: published(service) for name, service in services.items() if published(service)}
    assert ports == {"nginx": {"8080:8080"}}


def test_redis_is_reached_by_nodes_and_prometheus_only_and_reaches_nobody(tmp_path: Path) -> None:
    whole = read(tmp_path, "deploy/compose.operators.yaml")
    [network] = whole["services"]["redis"]["networks"]
    assert whole["networks"][network]["internal"] is True
    members = {name for name, service in whole["services"].items() if network in service["networks"]}
    assert members == {"redis", "node", "prometheus"}


def test_the_operators_port_is_on_this_machine_s_loopback(tmp_path: Path) -> None:
    nginx = read(tmp_path, "deploy/compose.operators.yaml")["services"]["nginx"]
    assert published(nginx) == {"8080:8080", "127.0.0.1:8081:8081"}


def test_tls_takes_the_place_of_the_plain_port_s_listen_file(tmp_path: Path) -> None:
    (tmp_path / "certificates").mkdir()
    nginx = read(tmp_path, "deploy/compose.tls.yaml", CERTIFICATES=str(tmp_path / "certificates"))["services"]["nginx"]
    mounted = {target: Path(source) for source, target, _ in (str(volume).split(":") for volume in nginx["volumes"])}
    assert mounted["/etc/roomcast/listen.conf"].name == "tls.conf"
    assert mounted["/etc/roomcast/certificates"] == tmp_path / "certificates"
    assert published(nginx) == {"8080:8080", "443:8443"}
    result = config(tmp_path, "deploy/compose.tls.yaml", **GIVEN)
    assert result.returncode != 0 and "fullchain.pem and privkey.pem" in result.stderr


def test_every_service_is_hardened(services: dict[str, Any]) -> None:
    assert set(services) == {"nginx", "node", "redis", "prometheus", "grafana"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        assert service["logging"]["options"] == {"max-size": "20m", "max-file": "5"}, name


def test_a_node_s_health_check_asks_readyz_with_what_the_image_has() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    [check] = re.findall(r"HEALTHCHECK .* CMD (\[.*?\])$", dockerfile.replace("\\\n", ""), re.MULTILINE)
    command = json.loads(check)
    assert command[0] == "python" and "/readyz" in command[-1]
    compile(command[-1], "health check", "exec")
    assert re.search(r"(?m)^USER 10001:10001$", dockerfile)


def test_everything_that_is_mounted_or_built_exists(services: dict[str, Any]) -> None:
    for service in services.values():
        for volume in service.get("volumes", []):
            source, _, _ = str(volume).partition(":")
            if source.startswith("/"):
                assert Path(source).exists(), source
    build = services["node"]["build"]
    dockerfile = Path(build["context"], build["dockerfile"]).read_text()
    for line in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", dockerfile):
        for source in line.split():
            assert Path(build["context"], source).exists(), f"the Dockerfile copies {source}"
            assert f"!{source}\n" in (ROOT / ".dockerignore").read_text(), f".dockerignore leaves out {source}"


def test_nginx_gets_the_files_its_configuration_includes(tmp_path: Path, services: dict[str, Any]) -> None:
    folder = ROOT / "deploy" / "nginx"
    included: set[str] = set()
    for name in ("nginx.conf", "roomcast.conf", "operators.conf"):
        included |= set(re.findall(r"(?m)^\s*include ([^*\s]+);", (folder / name).read_text()))
    operators = read(tmp_path, "deploy/compose.operators.yaml")["services"]
    for nginx, more in ((services["nginx"], set()), (operators["nginx"], {"operators.conf"})):
        mounted = {str(volume).split(":")[1] for volume in nginx["volumes"]}
        assert mounted == {f"/etc/roomcast/{name}" for name in included | {"nginx.conf"} | more}
        assert "/etc/roomcast/nginx.conf" in nginx["command"]
