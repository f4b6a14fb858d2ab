"""Files between the engine and this machine, as the user, in pieces and in threads; a file appears when it is whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from app.models.operations import Operation
from app.models.rows import size_text
from app.models.streams import reading

PIECE = 1 << 20


async def to_file(pieces: AsyncIterator[bytes], path: str, operation: Operation | None = None, total: int = 0) -> int:
    """Write *pieces* to the file *path*; its size. What was there stays until the new one is whole."""
    draft, written = f"{path}.part", 0
    file = await asyncio.to_thread(open, draft, "wb")
    try:
        async with reading(pieces) as stream:
            async for piece in stream:
                await asyncio.to_thread(file.write, piece)
                written += len(piece)
                if operation is not None:
                    operation.report(f"{size_text(written)} written", written, total)
        file.close()
        await asyncio.to_thread(os.replace, draft, path)
    except BaseException:
        file.close()
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    return written


async def of_file(path: str, operation: Operation | None = None) -> AsyncIterator[bytes]:
    """The file's bytes in pieces, telling *operation* how far it is."""
    total, done = os.path.getsize(path), 0
    with await asyncio.to_thread(open, path, "rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            done += len(piece)
            if operation is not None:
                operation.report(f"{size_text(done)} of {size_text(total)}", done, total)
            yield piece
