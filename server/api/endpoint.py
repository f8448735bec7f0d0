"""The HTTP API of a node: one ASGI application for all that is below /api/v1."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from broker.base import BrokerError
from server.api import looking, moderation, openapi, publishing, watching
from server.api.body import UnreadBody, answer_unread, body_of
from server.api.keys import ApiKey, Keyring
from server.api.operation import Call, Operation
from server.api.problems import Problem, of_broker, of_validation
from server.api.rates import Bucket
from server.api.values import RetryKey
from server.hub import LocalHub

logger = logging.getLogger("server.api")

MAX_QUERY_FIELDS: Final = 20
OPERATIONS: Final = (*publishing.OPERATIONS, *looking.OPERATIONS, *moderation.OPERATIONS, *watching.OPERATIONS)

_retry_key: TypeAdapter[str] = TypeAdapter(RetryKey)


def api_routes(hub: LocalHub) -> list[Route]:
    """``/api/v1``, if there are keys for it; without any it does not exist."""
    return [Route(openapi.PREFIX + "/{operation:path}", Api(hub))] if hub.settings.api_keys else []


class Api:
    def __init__(self, hub: LocalHub) -> None:
        self._hub = hub
        self._keyring = Keyring(hub.settings.api_keys)
        self._buckets: dict[str, Bucket] = {}
        self._operations: dict[str, dict[str, Operation]] = {}
        for operation in OPERATIONS:
            self._operations.setdefault(operation.path, {})[operation.method] = operation
        self._document = orjson.dumps(openapi.document(OPERATIONS))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except UnreadBody as problem:
            await answer_unread(problem.response(), receive, send)
            return
        except Problem as problem:
            response = problem.response()
        except BrokerError as error:
            response = of_broker(error).response()
        except ClientDisconnect:
            return
        except Exception:
            logger.exception("%s %s failed", request.method, request.url.path)
            response = Problem("internal", "this is a mistake in Roomcast; the node's log says more").response()
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = "/" + request.path_params["operation"]
        if path == "/openapi.json" and request.method == "GET":
            return Response(self._document, media_type="application/json")
        key = self._caller(request)
        operation = self._operation(path, request.method)
        if not key.allows(operation.scope):
            raise Problem(
                "forbidden",
                f"the key {key.name!r} lacks the scope {operation.scope}: use another one, or give it that in "
                "ROOMCAST_API_KEYS",
            )
        given = await self._given(request, operation)
        self._spend(key, operation.cost(given))
        if operation.scope == "admin":
            logger.info("%s %s by the key %s", operation.method, operation.path, key.name)
        reply = await operation.run(Call(self._hub, key.name, _retry_key_of(request, operation)), given)
        return Response(orjson.dumps(reply) + b"\n", media_type="application/json", headers=NOT_KEPT)

    def _caller(self, request: Request) -> ApiKey:
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        presented = secret.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key")
        key = self._keyring.find(presented) if presented else None
        if key is None:
            why = "no node knows this key" if presented else "there is no key in this request"
            raise Problem(
                "unauthorized",
                f"{why}: send one of ROOMCAST_API_KEYS as `Authorization: Bearer <secret>` or `X-API-Key: <secret>`",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return key

    def _operation(self, path: str, method: str) -> Operation:
        methods = self._operations.get(path)
        if methods is None:
            raise Problem("not_found", f"see {openapi.PREFIX}/openapi.json for what there is")
        if method not in methods:
            allowed = ", ".join(methods)
            raise Problem("method_not_allowed", f"use {allowed}", headers={"Allow": allowed})
        return methods[method]

    def _spend(self, key: ApiKey, count: int) -> None:
        settings, now_s = self._hub.settings, time.monotonic()
        bucket = self._buckets.get(key.name)
        if bucket is None:
            bucket = self._buckets[key.name] = Bucket(settings.api_requests_per_s, settings.api_requests_burst, now_s)
        wait_s = bucket.take(count, now_s)
        if wait_s:
            raise Problem(
                "rate_limited",
                f"more than {settings.api_requests_per_s:g} requests a second with the key {key.name!r} on this node: "
                f"try again in {wait_s:.2f} s",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )

    async def _given(self, request: Request, operation: Operation) -> Any:
        given = await body_of(request) if operation.has_body else _query_of(request)
        try:
            return operation.takes.model_validate(given)
        except ValidationError as error:
            raise of_validation(error, given) from None


NOT_KEPT: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


def _query_of(request: Request) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(request.url.query, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError as error:
        raise Problem("bad_request", f"the query cannot be read: {error}") from None
    query = dict(pairs)
    if len(query) < len(pairs):
        raise Problem("bad_request", "a parameter of the query comes twice: send it once")
    return query


def _retry_key_of(request: Request, operation: Operation) -> str | None:
    """The draft of the IETF writes it in quotes."""
    given = request.headers.get("idempotency-key")
    if given is None or not operation.retryable:
        return None
    try:
        return _retry_key.validate_python(given.strip('"'))
    except ValidationError:
        raise Problem("bad_request", "an Idempotency-Key is 1 to 64 of A-Z a-z 0-9 _ -, such as a UUID") from None
