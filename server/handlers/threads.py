"""Between coroutines and plain functions: an application may be written in either, and in both at once.

Sync functions of an application run in a thread, so that they hold nobody up. From there the coroutine methods of ours
can be called like plain functions: they return when it is done.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import anyio.to_thread

P = ParamSpec("P")
T = TypeVar("T")


class OnLoop(Protocol):
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...


Self = TypeVar("Self", bound=OnLoop)


async def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call an application's function, sync or async, with as many of the positional arguments as it takes.

    A sync one runs in a thread; if the caller is cancelled the thread is left to end by itself.
    """
    args = args[: positional_count(function)]
    if is_async(function):
        return await function(*args, **kwargs)
    work = functools.partial(function, *args, **kwargs)
    answer = await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    return await answer if inspect.isawaitable(answer) else answer


def is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


@functools.lru_cache(maxsize=1024)
def positional_count(function: Callable[..., Any]) -> int:
    """How many positional arguments it takes at most."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtins have no signature
        return 100
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 100
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def from_threads_too(
    method: Callable[Concatenate[Self, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Self, P], Coroutine[Any, Any, T]]:
    """Of a coroutine method: where no event loop runs it is carried out on ``self.loop`` and its result is returned."""

    @functools.wraps(method)
    def either(self: Self, *args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(method(self, *args, **kwargs), self.loop).result()
        if running is self.loop:
            return method(self, *args, **kwargs)
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(method(self, *args, **kwargs), self.loop))

    return cast("Callable[Concatenate[Self, P], Coroutine[Any, Any, T]]", either)
