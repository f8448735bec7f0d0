"""One connection: the ways in, the options of its socket, how much it takes at a time."""

from __future__ import annotations

import asyncio
import datetime
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.base import OutcomeUnknown, Unavailable
from broker.redis.address import parse_address
from broker.redis.connection import TCP_USER_TIMEOUT_MS, TICK_BYTES, Connection, connect
from broker.stats import BrokerStats
from tests.support.redis_server import RedisServer, free_port
from tests.support.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("loop_factory")]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    factory: Callable[[], asyncio.AbstractEventLoop] = request.param
    return factory


@asynccontextmanager
async def connected(url: str, lost: list[str] | None = None, timeout_s: float = 5) -> AsyncIterator[Connection]:
    address = parse_address(url)
    connection = await connect(
        address,
        password=address.password,
        name="test-connection",
        stats=BrokerStats(),
        on_lost=lambda _connection, reason: None if lost is None else lost.append(reason),
        timeout_s=timeout_s,
    )
    try:
        yield connection
    finally:
        connection.abort("end of test")
        await connection.ended


async def test_a_connection_logs_in_selects_its_database_and_says_its_name(redis_server: RedisServer) -> None:
    redis_server.command("ACL", "SETUSER", "u", "reset", "on", ">p@ss:/", "allkeys", "+@all")
    async with connected(f"redis://u:p%40ss%3A%2F@127.0.0.1:{redis_server.port}/3") as connection:
        line = (await connection.call("CLIENT", "LIST", "ID", await _id(connection), timeout_s=5)).decode()
        assert " name=test-connection " in line and " db=3 " in line and " user=u " in line
    redis_server.command("ACL", "DELUSER", "u")


async def _id(connection: Connection) -> int:
    number: int = await connection.call("CLIENT", "ID", timeout_s=5)
    return number


async def test_a_wrong_password_is_a_reason_that_does_not_repeat_it(redis_server: RedisServer) -> None:
    with pytest.raises(Unavailable, match="refuses user name or password") as raised:
        async with connected(f"redis://u:sesame@127.0.0.1:{redis_server.port}"):
            pass
    assert "sesame" not in str(raised.value)


async def test_nobody_listening_is_a_reason(tmp_path: Path) -> None:
    for url in (f"redis://127.0.0.1:{free_port()}", f"unix://{tmp_path}/nothing"):
        with pytest.raises(Unavailable, match="cannot connect to Redis at"):
            async with connected(url):
                pass


async def test_a_server_that_never_answers_is_given_up_in_time(redis_server: RedisServer) -> None:
    async with TcpProxy(redis_server.port).running() as proxy:
        proxy.hold_up()
        with pytest.raises(Unavailable, match=r"no answer within 0\.1 s|did not answer within 0\.1 s"):
            async with connected(proxy.url, timeout_s=0.1):
                pass


async def test_a_name_that_is_looked_up_for_too_long_is_given_up_and_its_end_is_nobodys_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = asyncio.Event()

    async def slow(*_: object, **__: object) -> None:
        try:
            await asyncio.sleep(0.05)
            raise socket.gaierror("no such host")
        finally:
            ended.set()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", slow)
    with pytest.raises(Unavailable, match=r"no answer within 0\.01 s"):
        async with connected("redis://redis.example", timeout_s=0.01):
            pass
    await ended.wait()


async def test_of_several_addresses_the_one_that_answers_is_taken(
    monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer
) -> None:
    async def two(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert host == "redis.example"
        return [(0, 0, 0, "", (ip, each)) for ip, each in (("127.0.0.1", free_port()), ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two)
    async with connected(f"redis://redis.example:{redis_server.port}") as connection:
        assert await connection.call("PING", timeout_s=5) in ("PONG", b"PONG")


async def test_the_socket_has_its_options(redis_server: RedisServer) -> None:
    async with connected(redis_server.tcp_url) as connection:
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == TCP_USER_TIMEOUT_MS


async def test_replies_come_in_order_and_errors_belong_to_their_command(redis_server: RedisServer) -> None:
    async with connected(redis_server.url) as connection:
        commands = [("ECHO", str(i)) if i != 500 else ("NONSENSE",) for i in range(1000)]
        calls = [connection.call(*command, timeout_s=5) for command in commands]
        replies = await asyncio.gather(*calls, return_exceptions=True)
        error = replies.pop(500)
        assert isinstance(error, OutcomeUnknown) and "NONSENSE" in str(error)
        assert replies == [b"%d" % i for i in range(1000) if i != 500]


async def test_a_lost_connection_tells_its_callers_and_its_owner_once(redis_server: RedisServer) -> None:
    lost: list[str] = []
    async with connected(redis_server.url, lost) as connection:
        number = await _id(connection)
        waiting = asyncio.ensure_future(connection.call("BLPOP", "nothing", 0, timeout_s=5))
        await asyncio.sleep(0)
        redis_server.command("CLIENT", "KILL", "ID", number)
        with pytest.raises(OutcomeUnknown, match="no answer"):
            await waiting
        await connection.ended
        with pytest.raises(Unavailable, match="is lost"):
            await connection.call("PING", timeout_s=5)
    assert len(lost) == 1


async def test_a_flood_is_taken_in_ticks_of_128_kib_and_others_have_their_turn(redis_server: RedisServer) -> None:
    async with connected(redis_server.tcp_url) as connection:
        sizes: list[int] = []
        ahead: list[int] = []
        done = asyncio.Event()

        def on_push(pushes: list[object]) -> None:
            if not sizes:
                time.sleep(0.2)  # now the kernel's buffer is full
            sizes.append(len(pushes))
            if sum(sizes) == 2000:
                done.set()
            number = len(sizes)
            asyncio.get_running_loop().call_soon(lambda: ahead.append(len(sizes) - number))

        connection.on_push = on_push
        for _ in range(2000):
            connection.write((b"ECHO", bytes(4096)))
        await asyncio.wait_for(done.wait(), 10)
        await asyncio.sleep(0)
        assert 30 <= max(sizes) <= TICK_BYTES // 4096 + 1
        assert max(ahead) <= 1  # whoever came later than a read had his turn before the next but one


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ca.crt`` and a server certificate for localhost, good for a day."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder


@pytest.fixture(scope="module")
def tls_port(certificates: Path) -> Iterator[int]:
    port = free_port()
    certificate, key = str(certificates / "ca.crt"), str(certificates / "server.key")
    with RedisServer(
        tls_port=str(port),
        tls_cert_file=certificate,
        tls_key_file=key,
        tls_ca_cert_file=certificate,
        tls_auth_clients="no",
    ):
        yield port


async def test_tls_with_a_known_certificate(tls_port: int, certificates: Path) -> None:
    async with connected(f"rediss://localhost:{tls_port}?ssl_ca_certs={certificates}/ca.crt") as connection:
        assert await connection.call("ECHO", bytes(300_000), timeout_s=5) == bytes(300_000)


async def test_tls_with_an_unknown_certificate_is_refused_unless_told_otherwise(tls_port: int) -> None:
    with pytest.raises(Unavailable, match=r"(?i)certificate"):
        async with connected(f"rediss://localhost:{tls_port}"):
            pass
    async with connected(f"rediss://localhost:{tls_port}?ssl_cert_reqs=none") as connection:
        assert await connection.call("PING", timeout_s=5) == b"PONG"
