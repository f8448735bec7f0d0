"""The OpenAPI 3.1 document, made from the operations that are served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from server.api.operation import Operation
from server.api.problems import KINDS
from server.api.values import Reply
from server.version import VERSION

PREFIX: Final = "/api/v1"
_RETRY_HEADER: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same one in the same room within two minutes, on any node, is one message with one position.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
}
_RETRY_AFTER: Final[dict[str, Any]] = {
    "Retry-After": {"description": "Seconds to wait.", "required": True, "schema": {"type": "integer", "minimum": 1}}
}
_HEADERS: Final[Mapping[str, dict[str, Any]]] = {
    "unauthorized": {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    "method_not_allowed": {"Allow": {"required": True, "schema": {"type": "string"}}},
    "rate_limited": _RETRY_AFTER,
    "unavailable": _RETRY_AFTER,
}


class FieldError(Reply):
    """What is wrong where: a JSON pointer into the body, or the name of a query parameter."""

    pointer: str
    detail: str


class ProblemDetails(Reply):
    """RFC 9457. ``detail`` says what to do next."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldError] = Field(default_factory=list)


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    operations = list(operations)
    models: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = []
    models += [(op.takes, "validation") for op in operations if op.has_body]
    models += [(op.reply, "serialization") for op in operations]
    models.append((ProblemDetails, "serialization"))
    _, definitions = models_json_schema(list(dict.fromkeys(models)), ref_template="#/components/schemas/{model}")
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Roomcast",
            "version": VERSION,
            "description": "The HTTP API of every node of a cluster: it does not matter which one is asked.",
        },
        "servers": [{"url": PREFIX}],
        "security": [{"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "responses": {code: _problem(code) for code in KINDS},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": f"{operation.method.lower()}{operation.path.replace('/', '_')}",
        "summary": operation.summary,
        "description": f"{operation.description}\n\nScope: `{operation.scope}`.",
        "responses": {
            "200": {"description": "Done", "content": _json(operation.reply.__name__)},
            **_problems(operation),
        },
    }
    parameters = [] if operation.has_body else _parameters(operation)
    if operation.retryable:
        parameters.append(_RETRY_HEADER)
    if parameters:
        described["parameters"] = parameters
    if operation.has_body:
        described["requestBody"] = {"required": True, "content": _json(operation.takes.__name__)}
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    schema = operation.takes.model_json_schema()
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            # A query has no null: what may be left out is left out.
            "schema": next((each for each in field.get("anyOf", ()) if each.get("type") != "null"), field),
        }
        for name, field in schema["properties"].items()
    ]


def _problems(operation: Operation) -> dict[str, dict[str, str]]:
    codes = [code for code in KINDS if code not in ("not_found", "method_not_allowed")]
    if not operation.has_body:
        codes = [code for code in codes if code not in ("timeout", "unsupported_media_type")]
    return {str(KINDS[code][0]): {"$ref": f"#/components/responses/{code}"} for code in codes}


def _problem(code: str) -> dict[str, Any]:
    described = {
        "description": KINDS[code][1],
        "content": {"application/problem+json": {"schema": _reference("ProblemDetails")}},
    }
    return {**described, "headers": _HEADERS[code]} if code in _HEADERS else described


def _json(model: str) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(model)}}


def _reference(model: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model}"}
