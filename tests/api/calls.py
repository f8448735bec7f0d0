"""Calls of the HTTP API of a node, over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any, NamedTuple
from urllib.parse import urlencode

SECRETS = {name: f"{name}-".ljust(40, "x") for name in ("backend", "viewer", "ops")}
KEYS = f"backend:publish:{SECRETS['backend']}, viewer:read:{SECRETS['viewer']}, ops:admin:{SECRETS['ops']}"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    """By their names in small letters."""
    body: Any
    """What the JSON says; bytes where there is none."""

    @property
    def ok(self) -> Any:
        """The body of what must have succeeded."""
        assert self.status == 200, self
        assert self.headers["content-type"] == "application/json"
        return self.body

    @property
    def problem(self) -> tuple[int, str]:
        """Status and code of what must have failed, as a whole problem."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert {"type", "title", "status", "detail", "code"} <= self.body.keys()
        assert self.body["status"] == self.status and self.body["type"] == f"urn:roomcast:problem:{self.body['code']}"
        assert self.body["title"] and self.body["detail"]
        return self.status, self.body["code"]


def call_now(port: int, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        raw = response.read()
    finally:
        connection.close()
    names = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, names, json.loads(raw) if "json" in names.get("content-type", "") else raw)


class Caller:
    """Somebody with a key (``ops`` may do everything) at one node."""

    def __init__(self, port: int, secret: str | None = SECRETS["ops"]) -> None:
        self.port = port
        self.secret = secret

    async def raw(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """``path`` below /api/v1."""
        given = {**(headers or {})}
        if self.secret is not None:
            given.setdefault("Authorization", f"Bearer {self.secret}")
        return await asyncio.to_thread(call_now, self.port, method, "/api/v1" + path, body, given)

    async def post(self, path: str, headers: dict[str, str] | None = None, /, **fields: Any) -> Answer:
        return await self.raw(
            "POST", path, json.dumps(fields).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    async def get(self, path: str, /, **query: Any) -> Answer:
        return await self.raw("GET", f"{path}?{urlencode(query)}" if query else path)

    async def delete(self, path: str, /, **query: Any) -> Answer:
        return await self.raw("DELETE", f"{path}?{urlencode(query)}")
