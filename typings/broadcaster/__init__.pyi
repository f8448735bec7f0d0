"""What loadtests/peers uses of broadcaster; it is installed only beside the peers."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

class Event:
    channel: str
    message: str

class Subscriber:
    def __aiter__(self) -> AsyncIterator[Event]: ...

class Broadcast:
    def __init__(self, url: str) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...
    def subscribe(self, channel: str) -> AbstractAsyncContextManager[Subscriber]: ...
