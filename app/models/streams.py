"""The engine's answers that go on: closed for certain when the reader leaves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar, cast

T = TypeVar("T")


@asynccontextmanager
async def reading(stream: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """*stream* while the block lasts; its request ends with the block, not when the garbage collector comes by."""
    try:
        yield stream
    finally:
        await cast(AsyncGenerator[T, None], stream).aclose()
