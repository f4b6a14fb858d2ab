"""Work in a thread that uses what its caller closes afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def to_the_end(work: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
    """As :func:`asyncio.to_thread`, but not left before *work* is done, however often it is cancelled: a descriptor
    that is closed too early may be somebody else's by the time the thread uses its number."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **more))
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
