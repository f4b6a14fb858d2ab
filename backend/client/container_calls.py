"""What is done to containers beyond their life: limits, files, changes, commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

from backend.client.connection import Connection
from backend.spec import api
from backend.spec.api.wire import decode


def _enc(ref: str) -> str:
    return quote(ref, safe="")


class ContainerCalls:
    """A part of the client."""

    connection: Connection

    async def update_container(self, ref: str, body: api.ContainerUpdate) -> api.ContainerUpdated:
        """Changes limits and the restart policy of a container, running or not."""
        return await self.connection.call("POST", f"/containers/{_enc(ref)}/update", api.ContainerUpdated, body=body)

    async def container_changes(self, ref: str) -> list[api.FilesystemChange]:
        """What differs from its image."""
        async with self.connection.open("GET", f"/containers/{_enc(ref)}/changes") as answer:
            data = await answer.read()
        # Engines say null when nothing differs.
        return [] if data.strip() == b"null" else decode(data, list[api.FilesystemChange])

    async def commit_container(self, ref: str, repository: str, tag: str, *, message: str = "", author: str = "",
                               pause: bool = True) -> str:
        """Makes an image of a container; the image's ID."""
        query = {"container": ref, "repo": repository or None, "tag": tag or None, "comment": message or None,
                 "author": author or None, "pause": pause}
        made = await self.connection.call("POST", "/commit", api.IdResponse, query=query, body={})
        return made.id

    async def read_archive(self, ref: str, path: str) -> AsyncIterator[bytes]:
        """A tar of what is at *path* of a container."""
        async for piece in self.connection.pieces("GET", f"/containers/{_enc(ref)}/archive", query={"path": path}):
            yield piece

    async def write_archive(self, ref: str, path: str, tar: AsyncIterator[bytes]) -> None:
        """Unpacks a tar into the directory *path* of a container."""
        async with self.connection.open("PUT", f"/containers/{_enc(ref)}/archive", query={"path": path}, data=tar,
                                        headers={"Content-Type": "application/x-tar"}) as answer:
            await answer.read()
