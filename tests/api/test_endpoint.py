"""The way in: keys, scopes, methods, sizes, shapes and rates; and what goes wrong is told as a problem."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from tests.api.calls import KEYS, SECRETS, Answer, Caller
from tests.support.chat import NodeHere, node_here
from tests.support.served import raw_client


def api(node: NodeHere, name: str = "ops") -> Caller:
    return Caller(node.served.port, SECRETS[name])


async def test_without_keys_there_is_no_api() -> None:
    async with node_here("fast") as node:
        for path in ("/publish", "/openapi.json", "/nodes"):
            assert (await api(node).get(path)).status == 404


@pytest.mark.parametrize("secret", [None, "x" * 40, SECRETS["ops"][:-1], SECRETS["ops"] + "x", "ops"])
async def test_without_a_good_key_nothing_is_told(secret: str | None) -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        caller = Caller(node.served.port, secret)
        for answer in (await caller.get("/nodes"), await caller.get("/no/such"), await caller.post("/publish")):
            assert answer.problem == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert secret is None or len(secret) < 8 or secret not in json.dumps(answer.body)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": SECRETS["ops"]},
        {"Authorization": f"bearer  {SECRETS['ops']}"},
        {"Authorization": "Basic abc", "X-API-Key": SECRETS["ops"]},
    ],
)
async def test_a_key_comes_in_either_header(headers: dict[str, str]) -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        assert (await Caller(node.served.port, None).raw("GET", "/nodes", None, headers)).status == 200


SCOPES = [
    ("POST", "/publish", "publish"),
    ("POST", "/broadcast", "publish"),
    ("POST", "/send", "publish"),
    ("POST", "/batch", "publish"),
    ("GET", "/presence", "read"),
    ("GET", "/presence/user", "read"),
    ("GET", "/history", "read"),
    ("GET", "/nodes", "read"),
    ("GET", "/rooms", "read"),
    ("POST", "/subscribe", "admin"),
    ("POST", "/unsubscribe", "admin"),
    ("POST", "/forget", "admin"),
    ("DELETE", "/history", "admin"),
    ("POST", "/disconnect", "admin"),
    ("POST", "/revoke", "admin"),
]


@pytest.mark.parametrize(("method", "path", "scope"), SCOPES)
async def test_a_key_does_what_its_scopes_say(method: str, path: str, scope: str) -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        for name, scopes in {"backend": {"publish"}, "viewer": {"read"}, "ops": {"publish", "read", "admin"}}.items():
            answer = await api(node, name).raw(method, path, b"{}" if method == "POST" else None)
            assert (answer.status == 403) is (scope not in scopes), (name, answer)
            if answer.status == 403:
                assert answer.problem == (403, "forbidden") and scope in answer.body["detail"]


async def test_two_keys_of_one_name_are_a_rotation() -> None:
    old, new = "o" * 32, "n" * 32
    async with node_here("fast", api_keys=f"a:publish:{old},a:publish:{new}") as node:
        before = await Caller(node.served.port, old).post("/publish", {"Idempotency-Key": "k"}, room="r", data=1)
        after = await Caller(node.served.port, new).post("/publish", {"Idempotency-Key": "k"}, room="r", data=1)
        assert before.ok == after.ok


async def test_unknown_paths_and_methods() -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        for path in ("/", "/nothing", "/publish/", "/publish/x", "//publish", "/PUBLISH"):
            assert (await api(node).get(path)).problem == (404, "not_found"), path
        wrong = await api(node).get("/publish")
        assert wrong.problem == (405, "method_not_allowed") and wrong.headers["allow"] == "POST"
        assert (await api(node).raw("PATCH", "/nodes")).headers["allow"] == "GET"
        assert (await api(node).raw("PUT", "/history")).headers["allow"] == "GET, DELETE"


async def publish(node: NodeHere, body: bytes, media_type: str = "application/json") -> Answer:
    return await api(node).raw("POST", "/publish", body, {"Content-Type": media_type})


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"", None),
        (b"{", None),
        (b"\xff", None),
        (b"NaN", None),
        (b'{"room":"r","data":"\\ud800"}', None),
        (b'{"room":"r","data":123456789012345678901}', None),
        (b"[" * 2000 + b"]" * 2000, None),
        (b'{"room":"r","data":' + b"[" * 40 + b"]" * 40 + b"}", None),
        (b"[]", "#"),
        (b"null", "#"),
        (b"{}", "#/room"),
        (b'{"room":"r"}', "#/data"),
        (b'{"room":1,"data":1}', "#/room"),
        (b'{"room":"__r","data":1}', "#/room"),
        (b'{"room":"a b","data":1}', "#/room"),
        (b'{"room":"","data":1}', "#/room"),
        (b'{"room":"r","data":1,"a/b~c":2}', "#/a~1b~0c"),
        (b'{"room":"r","data":1,"key":"k"}', "#/key"),
    ],
)
async def test_a_malformed_body_is_a_problem_that_says_where(body: bytes, pointer: str | None) -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        answer = await publish(node, body)
        assert answer.problem == (400, "bad_request")
        assert [error["pointer"] for error in answer.body.get("errors", ())][:1] == ([pointer] if pointer else [])
        assert (await publish(node, b'{"room":"r","data":1}')).ok["offset"] == 1, "and the node goes on"


@pytest.mark.parametrize(
    ("commands", "pointer"),
    [
        ([], "#/commands"),
        ([{"op": "send", "user_id": 1, "data": 1}] * 101, "#/commands"),
        ([{"op": "send", "user_id": 1, "data": 1}, {"op": "publish", "room": "__r", "data": 1}], "#/commands/1/room"),
        ([{"op": "publish", "data": 1}], "#/commands/0/room"),
        ([{"op": "publish", "room": "r", "data": 1, "extra": 1}], "#/commands/0/extra"),
        ([{"op": "nothing"}], "#/commands/0"),
        ([1], "#/commands/0"),
    ],
)
async def test_a_mistake_in_a_batch_is_pointed_at(commands: list[Any], pointer: str) -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        answer = await api(node).post("/batch", commands=commands)
        assert answer.problem == (400, "bad_request") and answer.body["errors"][0]["pointer"] == pointer


async def test_of_many_mistakes_a_few_are_told() -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        answer = await api(node).post("/publish", room="r", data=1, **{f"f{n}": n for n in range(5000)})
        assert len(answer.body["errors"]) == 20 and "(and 4999 more)" in answer.body["detail"]


@pytest.mark.parametrize("user", [1.5, True, None, "", "__x", "a b", 2**53 + 1, [1], {}])
async def test_what_is_no_user_id_is_refused(user: Any) -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        answer = await api(node).post("/send", user_id=user, data=1)
        assert answer.problem == (400, "bad_request") and answer.body["errors"][0]["pointer"] == "#/user_id"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=5001",
        "limit=ten",
        "room=__r",
        "nonsense=1",
        "limit=1&limit=2",
        "after=%ff",
        "after=%22x",
        "after=",
        "&".join(f"a{n}=1" for n in range(30)),
    ],
)
async def test_a_malformed_query_is_a_problem(query: str) -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        assert (await api(node).raw("GET", f"/presence?{query}")).problem == (400, "bad_request")


async def test_the_body_must_be_json_by_its_type() -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        body = b'{"room":"r","data":1}'
        assert (await publish(node, body, "text/plain")).problem == (415, "unsupported_media_type")
        assert (await publish(node, body, "Application/JSON; charset=utf-8")).status == 200


async def test_too_much_data_and_too_large_a_body() -> None:
    async with node_here("fast", api_keys=KEYS, max_message_bytes=1024) as node:
        fits = json.dumps({"room": "r", "data": "x" * 1022}).encode()
        assert (await publish(node, fits)).status == 200
        assert (await publish(node, fits.replace(b"xx", b"xxx", 1))).problem == (413, "too_large")
        assert (await publish(node, b" " * (2**20 + 1))).problem == (413, "too_large")
        assert (await publish(node, fits.ljust(2**20))).status == 200


async def test_a_large_body_without_a_length_is_not_read_to_its_end() -> None:
    head = (
        f"POST /api/v1/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: {SECRETS['ops']}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    async with (
        node_here("fast", api_keys=KEYS) as node,
        raw_client(node.served.port, head.encode()) as client,
    ):
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        for _ in range(17):
            client.send(chunk)
        status, text = await client.head()
        assert status == 413 and b"connection: close" in text.lower()


async def test_who_sends_all_of_a_large_body_before_reading_is_not_reset() -> None:
    """RFC 9112 §9.6: closed with bytes unread, TCP would throw the answer away."""
    size = 3 * 2**20
    head = f"POST /api/v1/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: {SECRETS['ops']}\r\nContent-Length: {size}\r\n\r\n"

    def exchange(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(head.encode())
            for _ in range(size // 65536):
                client.sendall(b" " * 65536)
            return b"".join(iter(lambda: client.recv(65536), b""))

    async with node_here("fast", api_keys=KEYS) as node:
        answer = await asyncio.to_thread(exchange, node.served.port)
        assert answer.startswith(b"HTTP/1.1 413 ") and b"send less" in answer


async def test_a_body_without_an_end_is_not_read_for_long() -> None:
    head = (
        f"POST /api/v1/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: {SECRETS['ops']}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )

    def sent_until_closed(port: int) -> int:
        sent = 0
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(head.encode())
            while sent < 2**30:
                try:
                    client.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
                except OSError:
                    break
                sent += 65536
        return sent

    async with node_here("fast", api_keys=KEYS) as node:
        assert await asyncio.to_thread(sent_until_closed, node.served.port) < 2**25  # 5 MiB and what the kernel holds


async def test_a_caller_who_leaves_in_the_middle_of_a_body_is_nothing_special() -> None:
    head = f"POST /api/v1/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: {SECRETS['ops']}\r\nContent-Length: 10\r\n\r\n"
    async with node_here("fast", api_keys=KEYS) as node:
        async with raw_client(node.served.port, head.encode() + b"{"):
            pass
        assert (await api(node).get("/nodes")).status == 200


async def test_a_key_has_a_rate_of_its_own_on_a_node() -> None:
    async with node_here("fast", api_keys=KEYS, api_requests_per_s=0.001, api_requests_burst=3) as node:
        answers = [await api(node, "viewer").get("/nodes") for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert answers[3].problem == (429, "rate_limited") and int(answers[3].headers["retry-after"]) > 900
        commands = [{"op": "send", "user_id": 1, "data": 1}] * 3
        assert (await api(node, "backend").post("/batch", commands=commands)).status == 200
        assert (await api(node, "backend").post("/send", user_id=1, data=1)).problem == (429, "rate_limited")


async def test_the_broker_away_is_a_problem_that_says_nothing_was_done() -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        broker: Any = node.hub.broker
        broker.interrupt("cut for a test")
        for answer in (
            await api(node).post("/publish", room="r", data=1),
            await api(node).post("/send", user_id=1, data=1),
            await api(node).post("/revoke", user_id=1),
            await api(node).get("/history", room="r"),
            await api(node).get("/presence"),
            await api(node).get("/nodes"),
        ):
            assert answer.problem == (503, "unavailable") and answer.headers["retry-after"] == "1"
            assert "nothing was done" in answer.body["detail"]
        (result,) = (await api(node).post("/batch", commands=[{"op": "publish", "room": "r", "data": 1}])).ok["results"]
        assert (result["status"], result["code"]) == (503, "unavailable")
        broker.restore()
        assert (await api(node).post("/publish", room="r", data=1)).ok["offset"] == 1


async def test_a_mistake_of_ours_is_a_problem_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        await node.hub.broker.append("r", b"\x00not ours", history=node.hub.rooms.history("r"))
        assert (await api(node).get("/history", room="r")).problem == (500, "internal")
        broker: Any = node.hub.broker

        async def broken() -> None:
            raise RuntimeError("boom")

        broker.nodes = broken
        answer = await api(node).get("/nodes")
        assert answer.problem == (500, "internal") and "boom" not in str(answer.body) and "boom" in caplog.text


async def test_administrators_are_in_the_log_by_the_name_of_their_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with node_here("fast", api_keys=KEYS) as node:
        await api(node).post("/disconnect", user_id=42)
    assert "POST /disconnect by the key ops" in caplog.text and SECRETS["ops"] not in caplog.text


async def test_many_at_once_are_served() -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        answers = await asyncio.gather(*(api(node).post("/publish", room="r", data=n) for n in range(30)))
        assert sorted(answer.ok["offset"] for answer in answers) == [*range(1, 31)]
