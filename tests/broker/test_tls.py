"""TLS to one Redis and to a cluster, with certificates made here."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from broker.base import History
from broker.options import BrokerOptions
from broker.redis.broker import RedisBroker
from tests.support.brokers import running
from tests.support.node import lasting_port
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Options of a server: a certificate for 127.0.0.1 that is its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    request += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(request, check=True, capture_output=True, timeout=20)
    paths = {"tls_cert_file": certificate, "tls_key_file": key, "tls_ca_cert_file": certificate}
    return {name: str(path) for name, path in paths.items()} | {"tls_auth_clients": "no"}


async def works(url: str, authority: str, prefix: str) -> None:
    """Also with so much at once that it comes in many records."""
    async with running(broker(f"{url}?ssl_ca_certs={authority}", prefix)) as a:
        await asyncio.gather(*(a.broker.subscribe(f"room:r{number}") for number in range(300)))
        payload = bytes(range(256)) * 200
        await asyncio.gather(*(a.broker.append("r0", payload, history=History()) for _ in range(60)))
        await a.sink.wait_count("room:r0", 60, 15)
        assert set(a.sink.payloads("room:r0")) == {payload} and a.broker.stats.reader_restarts == 0
        assert len((await a.broker.read("r0", 0, 100)).entries) == 60
    async with running(broker(url, prefix), wait_ready=False) as stranger:
        await stranger.sink.wait_for(lambda: stranger.sink.events)
        assert "CERTIFICATE_VERIFY_FAILED" in stranger.broker.reason


def broker(url: str, prefix: str) -> RedisBroker:
    return RedisBroker(url, node_id="a", options=BrokerOptions(prefix=prefix, heartbeat_s=5))


async def test_one_server(files: dict[str, str], prefix: str) -> None:
    port = lasting_port()
    with RedisServer(tls_port=str(port), **files):
        await works(f"rediss://127.0.0.1:{port}", files["tls_ca_cert_file"], prefix)


async def test_a_cluster_whose_servers_talk_tls_too(files: dict[str, str], prefix: str) -> None:
    cluster = RedisCluster(3, replicas=False, tls_cluster="yes", tls_replication="yes", **files)
    for server in cluster.masters:
        server.plain_port = False
    with cluster:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in cluster.masters)
        await works(f"rediss+cluster://{hosts}", files["tls_ca_cert_file"], prefix)
