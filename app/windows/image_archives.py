"""Images to and from archives on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence

from app.models.operations import Operation
from app.models.streams import reading
from app.models.transfers import of_file, to_file
from app.windows.context import Context


def save_archive(context: Context, references: Sequence[str], path: str) -> Operation:
    """Save images into the file *path*."""
    async def work(operation: Operation) -> None:
        await to_file(context.client.save_images(list(references)), path, operation)
    return context.operate(f"Save {', '.join(references)[:60]} to {os.path.basename(path)}", work)


def load_archive(context: Context, path: str) -> Operation:
    """Load the images in the archive at *path*."""
    async def work(operation: Operation) -> None:
        async with reading(context.client.load_images(of_file(path, operation))) as lines:
            async for line in lines:
                said = (line.text or line.status).strip()
                if said:
                    operation.say(said)
                    operation.report(said)
    return context.operate(f"Load {os.path.basename(path)}", work)
