"""Where to connect and with which token: each attempt takes the next URL and a fresh token."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlencode, urlsplit

from roomcast_client.events import UserId
from roomcast_client.link import Link

Token = str | Callable[[], str | Awaitable[str]]


class Dialer:
    """ValueError for what is no WebSocket URL."""

    def __init__(
        self, urls: Sequence[str], token: Token | None, user: UserId | None, *, open_timeout_s: float, ping_s: float
    ) -> None:
        for each in urls:
            if urlsplit(each).scheme not in ("ws", "wss"):
                raise ValueError(f"{each!r} is no WebSocket URL: write ws://host:port/ws or wss://host/ws")
        self.urls = urls
        self.renewable = callable(token)
        """A new token can be had."""
        self._token = token
        self._user = user
        self._open_timeout_s = open_timeout_s
        self._ping_s = ping_s
        self._attempts = 0

    async def token(self) -> str | None:
        """Raises what the application's function raises."""
        if self._token is None or isinstance(self._token, str):
            return self._token
        token = self._token()
        return await token if inspect.isawaitable(token) else token

    async def link(self, session: str | None) -> Link:
        """For one attempt. Raises as ``token``."""
        url = self.urls[self._attempts % len(self.urls)]
        self._attempts += 1
        query = {"user": str(self._user)} if self._user is not None else {}
        if session is not None:
            query["session"] = session
        if query:
            url += ("&" if urlsplit(url).query else "?") + urlencode(query)
        token = await self.token()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return Link(url, headers, open_timeout_s=self._open_timeout_s, ping_s=self._ping_s)
