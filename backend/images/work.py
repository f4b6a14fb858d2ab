"""Blocking work in threads that asyncio waits for in any case."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

from backend.runtime.syscalls import trim_memory

T = TypeVar("T")
_REST = 1.0  # seconds
_waiting: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.TimerHandle] = weakref.WeakKeyDictionary()


async def in_thread(stop: threading.Event, work: Callable[..., T], *arguments: object) -> T:
    """*work* in a thread. A cancelled task sets *stop*, which the work looks at, and still waits for the thread's end,
    however often it is cancelled: nobody writes or sends after the whole has ended."""
    future = asyncio.get_running_loop().run_in_executor(None, work, *arguments)
    cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            cancelled = True
            stop.set()
    _trim_later()
    if cancelled:
        if not future.cancelled():
            future.exception()  # looked at: the end of the whole says more than what this thread met
        raise asyncio.CancelledError
    return future.result()


def _trim_later() -> None:
    """A second after the last of such work, the system gets back what libc keeps of the buffers of its threads."""
    loop = asyncio.get_running_loop()
    waiting = _waiting.pop(loop, None)
    if waiting is not None:
        waiting.cancel()
    _waiting[loop] = loop.call_later(_REST, loop.run_in_executor, None, trim_memory)
