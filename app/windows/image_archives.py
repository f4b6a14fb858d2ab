"""Images to and from archives on this machine, read and written as the user, in threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence

from app.models.operations import Operation
from app.models.rows import size_text
from app.models.streams import reading
from app.windows.context import Context

_PIECE = 1 << 20


def save_archive(context: Context, references: Sequence[str], path: str) -> Operation:
    """Save images into the file *path*, which appears only when it is whole."""
    async def work(operation: Operation) -> None:
        draft, written = f"{path}.part", 0
        file = await asyncio.to_thread(open, draft, "wb")
        try:
            async with reading(context.client.save_images(list(references))) as pieces:
                async for piece in pieces:
                    await asyncio.to_thread(file.write, piece)
                    written += len(piece)
                    operation.report(f"{size_text(written)} written")
            file.close()
            await asyncio.to_thread(os.replace, draft, path)
        except BaseException:
            file.close()
            os.unlink(draft)
            raise
    return context.operate(f"Save {', '.join(references)[:60]} to {os.path.basename(path)}", work)


def load_archive(context: Context, path: str) -> Operation:
    """Load the images in the archive at *path*."""
    async def work(operation: Operation) -> None:
        total = os.path.getsize(path)

        async def pieces() -> AsyncIterator[bytes]:
            done = 0
            with await asyncio.to_thread(open, path, "rb") as file:
                while piece := await asyncio.to_thread(file.read, _PIECE):
                    done += len(piece)
                    operation.report(f"{size_text(done)} of {size_text(total)} read", done, total)
                    yield piece
        async with reading(context.client.load_images(pieces())) as lines:
            async for line in lines:
                said = (line.text or line.status).strip()
                if said:
                    operation.say(said)
                    operation.report(said)
    return context.operate(f"Load {os.path.basename(path)}", work)
