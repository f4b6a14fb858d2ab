"""Work that its caller must not leave half done when it is cancelled: its client has gone away, the engine stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """The result of *work*, which is carried through however often the caller is cancelled; then that is raised."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()              # it is not of interest any more, and must not be said to be unheard
        raise cancelled
    return task.result()


async def to_the_end(work: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
    """As :func:`asyncio.to_thread`, but not left before *work* is done: a descriptor that is closed too early may be
    somebody else's by the time the thread uses its number."""
    return await undisturbed(asyncio.to_thread(work, *arguments, **more))


@asynccontextmanager
async def tidy() -> AsyncGenerator[AsyncExitStack]:
    """An exit stack that is emptied to its end: what was paused goes on, what was mounted is let go."""
    stack = AsyncExitStack()
    try:
        yield stack
    finally:
        await undisturbed(stack.aclose())
