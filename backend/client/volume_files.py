"""The contents of one volume, as the user: browse, edit, back up, restore, clone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal
from urllib.parse import quote

from backend.client.connection import Connection, Query
from backend.spec import api
from backend.spec.api.wire import decode


class VolumeFiles:
    """A volume's files (``/slipway/volumes/…``; only Slipway's engine has them). Paths are absolute within the volume.

    Made by :meth:`backend.client.Client.volume_files`.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._at = f"/slipway/volumes/{quote(name, safe='')}"

    async def list(self, path: str = "/", *, after: str = "", limit: int = 1000) -> api.FileList:
        """The names in a directory, sorted; behind *after*, if there were more than fitted the last time."""
        query = {"path": path, "after": after or None, "limit": limit}
        return await self._connection.call("GET", f"{self._at}/files", api.FileList, query=query)

    async def stat(self, path: str) -> api.FileEntry:
        """What is at a path; a link is not followed."""
        return await self._connection.call("GET", f"{self._at}/stat", api.FileEntry, query={"path": path})

    async def read(self, path: str, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """A file's bytes as they come."""
        query = {"path": path, "offset": offset or None, "length": length}
        async for piece in self._connection.pieces("GET", f"{self._at}/file", query=query):
            yield piece

    async def load(self, path: str, *, limit: int) -> tuple[bytes, str, bool]:
        """A small file for an editor: its first *limit* bytes, its version for :meth:`write`, whether that is all."""
        query: Query = {"path": path, "length": limit}
        async with self._connection.open("GET", f"{self._at}/file", query=query) as answer:
            data = await answer.read()
            whole = int(answer.headers.get("X-Slipway-Size", "0")) == len(data)
            return data, answer.headers.get("ETag", "").strip('"'), whole

    async def write(
        self, path: str, data: bytes | AsyncIterator[bytes], *, expected: str = "", mode: int | None = None
    ) -> str:
        """Makes *data* the file's contents; its new version. *expected*: Conflict if it has another version now."""
        headers = {"Content-Type": "application/octet-stream", **({"If-Match": f'"{expected}"'} if expected else {})}
        query = {"path": path, "mode": f"{mode:o}" if mode is not None else None}
        async with self._connection.open("PUT", f"{self._at}/file", query=query, data=data, headers=headers) as answer:
            await answer.read()
            return str(answer.headers.get("ETag", "")).strip('"')

    async def remove(self, path: str) -> None:
        """Removes a file, or a directory with all that is in it."""
        await self._connection.send("DELETE", f"{self._at}/files", query={"path": path})

    async def make_directory(self, path: str) -> None:
        """Makes a directory, with those above it. Conflict if something is there."""
        await self._connection.send("POST", f"{self._at}/directory", query={"path": path})

    async def rename(self, old: str, new: str) -> None:
        """Moves a file or directory within the volume. Conflict if something is at *new*."""
        await self._connection.send("POST", f"{self._at}/rename", query={"from": old, "to": new})

    async def backup(
        self, *, path: str = "/", compression: Literal["none", "gzip", "zstd"] = "none", pause: bool = True
    ) -> AsyncIterator[bytes]:
        """A tar of the volume, or of *path* in it, as it is at one moment (*pause* False: as it is read)."""
        query = {"path": path, "compression": compression, "pause": "1" if pause else "0"}
        async for piece in self._connection.pieces("GET", f"{self._at}/backup", query=query):
            yield piece

    async def restore(self, source: AsyncIterator[bytes], *, replace: bool = False) -> api.Restored:
        """Fills the volume (which is made if it is not there) from a tar. *replace*: what is in it goes."""
        headers = {"Content-Type": "application/x-tar"}
        query = {"replace": "1" if replace else None}
        async with self._connection.open(
            "POST", f"{self._at}/restore", query=query, data=source, headers=headers
        ) as answer:
            return decode(await answer.read(), api.Restored)

    async def clone(self, name: str, *, labels: dict[str, str] | None = None) -> api.Volume:
        """A new volume with the same contents."""
        body = api.VolumeClone(name=name, labels=labels or {})
        return await self._connection.call("POST", f"{self._at}/clone", api.Volume, body=body)
