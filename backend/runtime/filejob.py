"""The helper's end of a confined child that works on a file tree: its reports, and the pipe that the tar goes through.

    async with await FileJob.start(keeper, view, task, data="out") as job:
        seen = await job.report("stat")
        async for piece in job.pieces(): ...
        await job.report("done")

Whoever leaves early ends the child: it is killed by its pidfd, whatever it was waiting for.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from backend.runtime.client import Keeper
from backend.runtime.plan import Overlay
from backend.runtime.protocol import KeeperError

_PIPE = 1 << 20
_MESSAGE = 1 << 17


@dataclass(frozen=True, slots=True)
class Look:
    """Whose files. One of: *id*, a running container (*own*: its root file system without its mounts); *overlay*, a
    stopped one's layers with *mounts* (OCI bind mounts) in them (an empty upper directory: only to read; *read_only*:
    the root takes nothing); *directory*, an open directory."""

    id: str = ""
    own: bool = False
    overlay: Overlay | None = None
    mounts: Sequence[dict[str, Any]] = field(default=())
    read_only: bool = False
    directory: int = -1


@dataclass(frozen=True, slots=True)
class Upload:
    """The body of a request that comes through a socket (a descriptor). *begun*: what has been read of it already;
    *length*: in bytes, -1 for chunked; *taken*: called when it is handed on. Only a body that is a plain tar can be."""

    socket: int
    begun: bytes
    length: int
    taken: Callable[[], None]


class FileJob:
    """One child at work. Made by :meth:`start`; an asynchronous context manager."""

    def __init__(self, report: socket.socket, data: int, child: int) -> None:
        """*data*: our end of the pipe, -1 for none; *child*: its pidfd. All are closed at the end."""
        self._report = report
        self._data = data
        self._child = child
        self._handed_over = False
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def start(
        cls,
        keeper: Keeper,
        look: Look,
        task: dict[str, Any],
        data: Literal["in", "out", ""] = "",
        upload: Upload | None = None,
    ) -> FileJob:
        """Starts *task*; its tar comes "out" of the child or goes "in", or comes from *upload*, which the child reads
        itself (see :meth:`hand_over`). Raises :class:`KeeperError`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        pipe = _pipe(data)
        extra = [fd for fd in (look.directory, upload.socket if upload else -1) if fd >= 0]
        fds = [theirs.fileno(), *pipe[1:], *extra]
        if upload is not None:
            task = {**task, "length": upload.length}
        try:
            child = await keeper.files(
                fds, task=task, data=bool(data), directory=look.directory >= 0, id=look.id, own=look.own,
                overlay=asdict(look.overlay) if look.overlay else None, mounts=list(look.mounts),
                read_only=look.read_only, socket=upload is not None,
            )  # fmt: skip
        except BaseException:
            ours.close()
            for fd in pipe[:1]:
                os.close(fd)
            raise
        finally:
            theirs.close()
            for fd in pipe[1:]:
                os.close(fd)
        return cls(ours, pipe[0] if pipe else -1, child)

    async def __aenter__(self) -> FileJob:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child if it has not ended."""
        if self._child >= 0:
            try:
                signal.pidfd_send_signal(self._child, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.close(self._child)
            self._child = -1
        self.end_input()
        self._report.close()

    async def report(self, name: str) -> Any:
        """The child's next message, which must be *name*. Raises :class:`KeeperError` for what it could not do."""
        data = await self._loop.sock_recv(self._report, _MESSAGE)
        if not data:
            raise KeeperError("files", "other", "the process that works on the files has ended early")
        message = json.loads(data)
        if "error" in message:
            if self._handed_over:
                await self.ended()
            raise KeeperError.from_wire(message["error"])
        return message[name]

    async def hand_over(self, upload: Upload) -> None:
        """Gives the child what has been read of *upload*; the rest it reads itself."""
        upload.taken()
        self._handed_over = True
        await self.write(upload.begun)
        self.end_input()

    async def ended(self) -> None:
        """Returns when the child has: after an error it still reads what its client sends."""
        while await self._loop.sock_recv(self._report, _MESSAGE):
            pass

    # --- the pipe ---------------------------------------------------------------------------------------------------
    async def pieces(self) -> AsyncIterator[bytes]:
        """What comes through the pipe, up to its end."""
        while True:
            try:
                piece = os.read(self._data, _PIPE)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
                continue
            if not piece:
                return
            yield piece

    async def write(self, piece: bytes | memoryview) -> bool:
        """Sends all of *piece*. False: the child takes no more (its report says why, or it has all it needs)."""
        view = memoryview(piece)
        while view:
            try:
                view = view[os.write(self._data, view) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            except BrokenPipeError:
                return False
        return True

    def end_input(self) -> None:
        """Nothing more is sent."""
        if self._data >= 0:
            os.close(self._data)
            self._data = -1

    async def _ready(self, add: Any, remove: Any) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        fd = self._data

        def ready() -> None:
            if not future.done():
                future.set_result(None)

        add(fd, ready)
        try:
            await future
        finally:
            remove(fd)


def _pipe(data: str) -> tuple[int, ...]:
    """Our end (non-blocking), then the child's; nothing if there is no tar."""
    if not data:
        return ()
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE)
    ours, theirs = (read, write) if data == "out" else (write, read)
    os.set_blocking(ours, False)
    return ours, theirs
