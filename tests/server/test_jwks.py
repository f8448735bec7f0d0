"""Keys from a file or a URL: which are taken, and how they rotate."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest

from server.jwks import RemoteKeys, check_address, parse
from tests.server.test_auth import jwk


def found(*keys: Any) -> dict[str, str]:
    return {key_id: key.algorithm for key_id, key in parse(json.dumps({"keys": keys}).encode()).by_id.items()}


def test_every_key_has_one_algorithm() -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "hs"}
    assert found(jwk("RS256"), jwk("ES256"), jwk("EdDSA"), secret) == {
        "rsa-1": "RS256",
        "ec-1": "ES256",
        "ed-1": "EdDSA",
        "hs": "HS256",
    }
    assert found(jwk("RS256", alg="RS512")) == {"rsa-1": "RS512"}


def test_keys_that_sign_nothing_here_are_passed_over() -> None:
    good = jwk("RS256")
    others = [
        jwk("ES256", use="enc"),
        jwk("ES256", alg="HS256"),
        {"kty": "oct", "k": "c2VjcmV0" * 8, "alg": "RS256", "kid": "x"},
        {"kty": "EC", "crv": "secp256k1", "kid": "y"},
        {"kty": "RSA", "kid": "z", "n": "!", "e": "!"},
        {"kty": "magic"},
        7,
    ]
    assert found(good, *others) == {"rsa-1": "RS256"}


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"keys": 7}', b'{"keys": []}', b'{"keys": [{"kty": "magic"}]}'])
def test_what_is_no_jwks(text: bytes) -> None:
    with pytest.raises(ValueError, match="JWKS"):
        parse(text)


@pytest.mark.parametrize("address", ["http://keys.example/jwks", "ftp://keys.example/", "http://localhost.evil/"])
def test_keys_come_over_https(address: str) -> None:
    with pytest.raises(ValueError, match="https"):
        check_address(address)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_rotated_file_is_read_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys.json", Clock()
    path.write_text(json.dumps({"keys": [jwk("RS256")]}))
    keys = RemoteKeys(str(path), clock)
    assert await keys.find("rsa-1") and not await keys.find("ec-1")
    path.write_text(json.dumps({"keys": [jwk("ES256")]}))
    assert await keys.find("ec-1"), "a new key id is looked for at once"
    clock.now += 1
    assert not await keys.find("rsa-1"), "a key that was taken out counts no longer"
    os.unlink(path)
    clock.now += 1
    assert await keys.find("ec-1"), "while the file is away the last ones count"


class Source(http.server.BaseHTTPRequestHandler):
    body = b""
    status = 200
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(self.status)
        if self.status == 302:
            self.send_header("location", "/elsewhere")
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def source(*keys: Any) -> Iterator[tuple[type[Source], str]]:
    class Own(Source):
        body = json.dumps({"keys": keys}).encode()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Own, f"http://127.0.0.1:{server.server_address[1]}/jwks"
        finally:
            server.shutdown()
            thread.join()


async def test_a_url_is_fetched_seldom_and_again_for_a_new_key() -> None:
    clock = Clock()
    with source(jwk("RS256")) as (served, url):
        keys = RemoteKeys(url, clock, refresh_s=600, retry_s=10)
        for _ in range(3):
            assert await keys.find("rsa-1")
        assert served.asked == 1
        served.body = json.dumps({"keys": [jwk("RS256"), jwk("EdDSA")]}).encode()
        for _ in range(100):
            assert not await keys.find("ed-1")
        assert served.asked == 1, "a flood of unknown key ids asks nobody"
        clock.now += 10
        key = await keys.find("ed-1")
        assert key is not None and key.algorithm == "EdDSA" and served.asked == 2
        served.body = json.dumps({"keys": [jwk("EdDSA")]}).encode()
        clock.now += 600
        assert await keys.find("rsa-1") is None and served.asked == 3


@pytest.mark.parametrize(("status", "body"), [(500, None), (302, None), (200, b"no JSON"), (200, b" " * 300_000)])
async def test_while_the_source_is_out_of_order_the_last_keys_count(status: int, body: bytes | None) -> None:
    clock = Clock()
    with source(jwk("RS256")) as (served, url):
        keys = RemoteKeys(url, clock)
        assert await keys.find("rsa-1")
        served.status, served.body = status, served.body if body is None else body
        clock.now += 600
        assert await keys.find("rsa-1") and served.asked == 2


def test_the_library_agrees_that_the_key_is_public_only() -> None:
    [key] = parse(json.dumps({"keys": [jwk("RS256")]}).encode()).by_id.values()
    with pytest.raises((jwt.InvalidKeyError, TypeError, AttributeError)):
        jwt.encode({}, key.key, algorithm="RS256")
