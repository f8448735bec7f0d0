"""compose.cluster.yaml and compose.sentinel.yaml as docker-compose reads them, and the scripts they start."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from broker.redis.target import parse_target
from tests.deploy.test_compose import GIVEN, ROOT, config, read
from tests.support.redis_cluster import RedisCluster

FOLDER = ROOT / "deploy" / "redis"
CLUSTER, SENTINEL = "deploy/compose.cluster.yaml", "deploy/compose.sentinel.yaml"
MEMBERS = {CLUSTER: 6, SENTINEL: 3}
compose = pytest.mark.compose


def redis_of(services: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in services.items() if name.startswith(("redis", "sentinel"))}


@compose
@pytest.mark.parametrize("file", MEMBERS)
def test_nodes_know_where_to_ask_and_every_server_is_hardened(tmp_path: Path, file: str) -> None:
    services = read(tmp_path, file, REDIS_OPERATOR_PASSWORD="ghi")["services"]
    target = parse_target(services["node"]["environment"]["ROOMCAST_BROKER"])
    addresses = {
        service["networks"]["back"]["ipv4_address"]
        for service in redis_of(services).values()
        if service["networks"]["back"]
    }
    assert {seed.host for seed in target.seeds} <= services.keys() | addresses and len(target.seeds) == 3
    assert (target.server.username, target.server.password) == ("roomcast", "abc")
    members = [
        name for name, service in services.items() if "/etc/roomcast/start-member" in service.get("entrypoint", ())
    ]
    assert len(members) == MEMBERS[file]
    for name, service in redis_of(services).items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"] and not service.get("ports"), name
        assert [*service["networks"]] == ["back"], name
        assert (FOLDER / Path(service["entrypoint"][1]).name).exists()
    volumes = [str(volume).split(":")[0] for service in redis_of(services).values() for volume in service["volumes"]]
    data = [volume for volume in volumes if volume.endswith("-data")]
    assert len(data) == len(set(data)), "nobody writes into another one's data"


@compose
@pytest.mark.parametrize("file", MEMBERS)
def test_without_the_operators_password_it_says_what_to_do(tmp_path: Path, file: str) -> None:
    result = config(tmp_path, file, **GIVEN)
    assert result.returncode != 0 and "REDIS_OPERATOR_PASSWORD" in result.stderr + result.stdout


@compose
def test_the_servers_of_a_cluster_have_addresses_that_stay(tmp_path: Path) -> None:
    whole = read(tmp_path, CLUSTER, REDIS_OPERATOR_PASSWORD="ghi", BACK_NET="10.1.2")
    addresses = [
        service["networks"]["back"]["ipv4_address"]
        for service in whole["services"].values()
        if "/etc/roomcast/start-member" in service.get("entrypoint", ())
    ]
    assert sorted(addresses) == [f"10.1.2.{number}" for number in range(11, 17)]
    assert whole["networks"]["back"]["internal"] is True


@pytest.mark.redis
def test_the_script_forms_a_cluster_once() -> None:
    environment = os.environ | {"REDIS_OPERATOR_PASSWORD": "ghi"}
    with ExitStack() as stack:
        cluster = RedisCluster()
        stack.push(cluster)
        cluster.start()
        for server in cluster.servers:
            server.command("CONFIG", "SET", "masterauth", "ghi", "requirepass", "ghi")
        hosts = [f"127.0.0.1:{server.port}" for server in cluster.servers]
        for said in ("[OK] All 16384 slots covered", "it is a cluster already"):
            result = subprocess.run(
                ["sh", str(FOLDER / "form-cluster"), *hosts],
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert result.returncode == 0 and said in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize("name", ["start-member", "start-sentinel", "form-cluster"])
def test_the_scripts_are_shell(name: str) -> None:
    assert subprocess.run(["sh", "-n", str(FOLDER / name)], timeout=10).returncode == 0
