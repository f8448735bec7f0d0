"""Errors of the HTTP API as problem details (RFC 9457), with the words for them that the client protocol has, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from pydantic import ValidationError
from starlette.responses import Response

from broker.base import BrokerError, OutcomeUnknown

KINDS: Final[Mapping[str, tuple[int, str]]] = {
    "bad_request": (400, "The request makes no sense"),
    "unauthorized": (401, "A key is needed"),
    "forbidden": (403, "The key does not allow this"),
    "not_found": (404, "There is no such operation"),
    "method_not_allowed": (405, "Not with this method"),
    "timeout": (408, "The request did not come to its end"),
    "too_large": (413, "Too large"),
    "unsupported_media_type": (415, "Not JSON"),
    "rate_limited": (429, "Too many requests"),
    "internal": (500, "The server failed on this request"),
    "unavailable": (503, "The broker is away"),
    "outcome_unknown": (504, "The broker did not answer in time"),
}
"""Code -> status and title."""
MAX_ERRORS: Final = 20
"""Told of one request."""


class Problem(Exception):
    """Answered as it stands. ``code`` is one of ``KINDS``; ``detail`` says what to do next."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}

    @property
    def fields(self) -> dict[str, Any]:
        status, title = KINDS[self.code]
        fields = {
            "type": f"urn:roomcast:problem:{self.code}",
            "title": title,
            "status": status,
            "detail": self.detail,
            "code": self.code,
        }
        return {**fields, "errors": list(self.errors)} if self.errors else fields

    def response(self) -> Response:
        body = orjson.dumps(self.fields) + b"\n"
        return Response(body, KINDS[self.code][0], dict(self.headers), "application/problem+json")


def of_broker(error: BrokerError) -> Problem:
    """Not done, or not known whether done: the difference decides how to retry."""
    if isinstance(error, OutcomeUnknown):
        return Problem("outcome_unknown", f"{error}. Without an Idempotency-Key it may happen twice")
    return Problem("unavailable", f"nothing was done: {error}", headers={"Retry-After": "1"})


def of_validation(error: ValidationError, given: object) -> Problem:
    """What is wrong with a body or a query, each with a JSON pointer into it."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    errors = [
        {"pointer": _pointer(each["loc"], given), "detail": each["msg"].removeprefix("Value error, ")}
        for each in found[:MAX_ERRORS]
    ]
    first = errors[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    where = first["pointer"].removeprefix("#/") if first["pointer"] != "#" else "the request"
    return Problem("bad_request", f"{where}: {first['detail']}{more}", errors=errors)


def _pointer(path: Sequence[int | str], given: Any) -> str:
    """Pydantic's path also names the variant of a union, which is nowhere in the request."""
    parts = ["#"]
    for number, part in enumerate(path, 1):
        if isinstance(given, list) and isinstance(part, int) and part < len(given):
            given = given[part]
        elif isinstance(given, Mapping) and part in given:
            given = given[part]
        elif number < len(path):
            continue
        parts.append(str(part).replace("~", "~0").replace("/", "~1"))
    return "/".join(parts)
