"""The OpenAPI document: whole, true to what is served, and every operation called as it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from server.api import openapi
from server.api.endpoint import OPERATIONS
from server.api.operation import Operation
from server.api.problems import KINDS
from tests.api.calls import KEYS, SECRETS, Answer, Caller
from tests.support.chat import node_here

DOCUMENT = openapi.document(OPERATIONS)
EXAMPLES: dict[str, dict[str, Any]] = {
    "/publish": {"room": "r", "data": {"text": "hi"}},
    "/broadcast": {"path": "/ws", "data": 1},
    "/send": {"user_id": 42, "data": None},
    "/batch": {"commands": [{"op": "publish", "room": "r", "data": 1}, {"op": "send", "user_id": "a", "data": 2}]},
    "/presence": {},
    "/presence/user": {"user_id": "42"},
    "/history": {"room": "r"},
    "/nodes": {},
    "/rooms": {},
    "/subscribe": {"user_id": 42, "room": "r"},
    "/unsubscribe": {"user_id": 42, "room": "r"},
    "/forget": {"user_id": 42},
    "/disconnect": {"user_id": 42},
    "/revoke": {"token_id": "t", "for_s": 60},
    "/status/ticket": {},
}
"""What each operation is called with in these tests."""


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """All objects of a document."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def test_it_is_openapi_3_1_with_all_operations_and_nothing_else() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert DOCUMENT["info"].keys() >= {"title", "version"}
    described = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert described == {(operation.method, operation.path) for operation in OPERATIONS}
    assert {path for _, path in described} == EXAMPLES.keys()


def test_every_reference_leads_somewhere_and_everything_is_referred_to() -> None:
    used = {each["$ref"] for each in walk(DOCUMENT) if "$ref" in each}
    for reference in used:
        found: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    kept = DOCUMENT["components"]
    known = {f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in kept[kind]}
    unused = {"#/components/responses/not_found", "#/components/responses/method_not_allowed"}
    assert known - used == unused, "these two belong to no operation"


def test_names_of_operations_are_used_once_and_words_are_there() -> None:
    operations = [operation for item in DOCUMENT["paths"].values() for operation in item.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["summary"] and operation["description"] for operation in operations)


def test_parameters_and_bodies_are_where_http_has_them() -> None:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            assert ("requestBody" in operation) is (method == "post"), path
            for parameter in operation.get("parameters", ()):
                assert parameter["in"] in ("query", "header") and parameter["schema"], path
                assert method != "post" or parameter["name"] == "Idempotency-Key"
    names = [parameter["name"] for parameter in DOCUMENT["paths"]["/history"]["get"]["parameters"]]
    assert names == ["room", "limit", "before", "since"]
    assert DOCUMENT["paths"]["/history"]["get"]["parameters"][0]["required"] is True


def test_every_status_that_a_problem_can_have_is_described() -> None:
    for item in DOCUMENT["paths"].values():
        for operation in item.values():
            assert {"200", "400", "401", "403", "429", "500", "503", "504"} <= operation["responses"].keys()
    assert {status for status, _ in KINDS.values()} >= {404, 405, 408, 413, 415}


async def test_it_is_served_to_everybody_as_it_stands() -> None:
    async with node_here("fast", api_keys=KEYS) as node:
        served = await Caller(node.served.port, None).get("/openapi.json")
        assert served.ok == DOCUMENT


def called(api: Caller, operation: Operation) -> Any:
    example = EXAMPLES[operation.path]
    if operation.has_body:
        return api.post(operation.path, **example)
    return api.raw(operation.method, operation.path + "?" + "&".join(f"{k}={v}" for k, v in example.items()))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
async def test_every_operation_answers_as_described(operation: Operation) -> None:
    async with node_here("fast", api_keys=KEYS) as node, node.client("42", "r"):
        api = Caller(node.served.port, SECRETS["ops"])
        await api.post("/publish", room="r", data=1)
        answer: Answer = await called(api, operation)
        operation.reply.model_validate(answer.ok)  # forbids what is not described
        unknown = {**EXAMPLES[operation.path], "no_such_field": 1}
        if operation.has_body:
            refused = await api.post(operation.path, **unknown)
        else:
            refused = await api.raw(operation.method, f"{operation.path}?no_such_field=1")
        assert refused.problem == (400, "bad_request")
        openapi.ProblemDetails.model_validate(refused.body)
