"""A file whose contents come when they are read: a sparse file, and the kernel asks us before it gives out a hole.

fanotify's pre-content events (Linux 6.14) stop whoever reads the file, in whatever way (an EROFS mount with its data
in the file reads it for every container), until we have filled what he wants and say so. Once everything has come the
watch is taken away and the file is a plain file: nothing of ours stands between it and its readers any more.

While the watch is there it must not die, or holes would be read as zeros: the group's descriptor is entrusted to the
keeper as well. Events are read and served in threads of their own, never on the helper's loop, which may itself be
reading.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import struct
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from backend.errors import EngineError
from backend.images.toc import Chunk
from backend.images.transport import Stopped
from backend.runtime import syscalls as sc

log = logging.getLogger("images")
_EVENT = struct.Struct("=IBBHQii")
_INFO = struct.Struct("=BBH")
_RANGE = struct.Struct("=IQQ")
_RANGE_INFO = 6                       # FAN_EVENT_INFO_TYPE_RANGE
_SERVERS = 4                          # readers that are served at the same time
_AHEAD = 256 << 10                    # packed bytes that are fetched at once where they are neighbours
_ORPHANS = 4096                       # event numbers that a helper before us may have left unanswered

#: Gives the contents of the chunks, which are neighbours in the layer. Blocks. Raises EngineError or OSError.
Fill = Callable[[Sequence[Chunk]], Sequence[bytes]]


def supported(folder: str) -> bool:
    """Whether this kernel and the file system of *folder* have pre-content events."""
    probe = os.path.join(folder, f".probe-{os.getpid()}")
    group = -1
    try:
        with open(probe, "wb"):
            group = sc.fanotify_init(sc.FAN_CLASS_PRE_CONTENT | sc.FAN_CLOEXEC, os.O_RDONLY)
            sc.fanotify_mark(group, sc.FAN_MARK_ADD, sc.FAN_PRE_ACCESS, probe)
    except OSError:
        return False
    finally:
        if group >= 0:
            os.close(group)
        if os.path.exists(probe):
            os.unlink(probe)
    return True


class OnDemand:
    """One sparse file. *data*: a descriptor to write it with, opened before the watch was set, so that our own writing
    asks nobody."""

    def __init__(self, data: int, group: int, chunks: Sequence[Chunk]) -> None:
        self.data = data
        self.group = group
        self.chunks = list(chunks)
        self._starts = [one.start for one in chunks]
        self._order = sorted(range(len(chunks)), key=lambda number: (chunks[number].begin, chunks[number].inner))
        self._rank = {number: rank for rank, number in enumerate(self._order)}
        self._lock = threading.Lock()
        self._there: list[bool] = [False] * len(chunks)
        self._coming: dict[int, Future[None]] = {}
        self._filling = threading.Lock()
        self._closed = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self.served = 0               # bytes that came because somebody wanted them

    @classmethod
    def watch(cls, path: str, chunks: Sequence[Chunk]) -> OnDemand:
        """Watches the sparse file *path*, whose holes *chunks* fill. Raises OSError."""
        data = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            # Without a limit: a question that found no room in the queue would be allowed.
            flags = sc.FAN_CLASS_PRE_CONTENT | sc.FAN_CLOEXEC | sc.FAN_UNLIMITED_QUEUE
            group = sc.fanotify_init(flags, os.O_RDONLY | os.O_CLOEXEC)
            try:
                sc.fanotify_mark(group, sc.FAN_MARK_ADD, sc.FAN_PRE_ACCESS, path)
            except OSError:
                os.close(group)
                raise
        except OSError:
            os.close(data)
            raise
        return cls(data, group, chunks)

    # --- serving ----------------------------------------------------------------------------------------------------
    def serve(self, fill: Fill) -> None:
        """Answer readers from now on, with what *fill* brings."""
        self._pool = ThreadPoolExecutor(_SERVERS, "slipway-demand")
        self._thread = threading.Thread(target=self._listen, args=(fill,), name="slipway-demand", daemon=True)
        self._thread.start()

    def _listen(self, fill: Fill) -> None:
        poll = select.poll()
        poll.register(self.group, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not any(fd == self._wake for fd, _ in poll.poll()):
            try:
                data = os.read(self.group, 1 << 16)
            except OSError as error:          # no descriptor left for it: the kernel has refused that reader
                log.error("a reader of an image that has not arrived yet was refused: %s", error)
                continue
            self._take(data, fill)

    def _take(self, data: bytes, fill: Fill) -> None:
        at = 0
        while at < len(data):
            length, _, _, head, _, fd, _ = _EVENT.unpack_from(data, at)
            offset, size = _range_of(data[at + head:at + length])
            assert self._pool is not None
            if fd >= 0:
                self._pool.submit(self._answer, fd, offset, size, fill)
            at += length

    def _answer(self, fd: int, offset: int, size: int, fill: Fill) -> None:
        verdict = sc.FAN_DENY | errno.EIO << 24
        try:
            self.bring(offset, size, fill)
            verdict = sc.FAN_ALLOW
        except Stopped:
            verdict = 0                   # we are leaving: whoever comes after us answers
        except (EngineError, OSError) as error:
            log.error("a part of an image that has not arrived yet could not be fetched: %s", error)
        finally:
            if verdict:
                os.write(self.group, struct.pack("=iI", fd, verdict))
            os.close(fd)

    # --- filling ----------------------------------------------------------------------------------------------------
    def bring(self, offset: int, size: int, fill: Fill) -> None:
        """Fills what is missing of *size* bytes from *offset* on (0: to the end)."""
        first = max(bisect_right(self._starts, offset) - 1, 0)
        number = first
        while number < len(self.chunks) and (not size or self.chunks[number].start < offset + size):
            one = self.chunks[number]
            if one.start + one.size > offset and not self._there[number]:
                self._bring(number, fill)
            number += 1

    def _bring(self, number: int, fill: Fill) -> None:
        with self._lock:
            if self._there[number]:
                return
            waiting = self._coming.get(number)
            mine = [] if waiting is not None else self._claim(number)
        if waiting is not None:
            waiting.result()
            return
        self._fetch(mine, fill)

    def _claim(self, number: int) -> list[int]:
        """With the lock: this chunk and its neighbours in the layer that are missing too, marked as coming."""
        found = [number]
        begin = self.chunks[number].begin
        for rank in range(self._rank[number] + 1, len(self._order)):
            other = self._order[rank]
            if self._there[other] or other in self._coming or self.chunks[other].end - begin > _AHEAD:
                break
            found.append(other)
        for one in found:
            self._coming[one] = Future()
        return found

    def _fetch(self, numbers: Sequence[int], fill: Fill) -> None:
        failure: BaseException | None = None
        try:
            for number, data in zip(numbers, fill([self.chunks[one] for one in numbers]), strict=True):
                self._write(self.chunks[number].start, data)
                self._there[number] = True
                self.served += len(data)
        except BaseException as error:
            failure = error
            raise
        finally:
            with self._lock:
                futures = [self._coming.pop(number) for number in numbers]
            for future in futures:
                if failure is None:
                    future.set_result(None)
                else:
                    future.set_exception(failure)

    def _write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self.data, view, offset)
            view, offset = view[done:], offset + done

    def fill_all(self, fill: Fill) -> None:
        """Fills everything that is missing. Raises :class:`Stopped` when this is closed meanwhile."""
        with self._filling:
            for number in self._order:
                if self._closed:
                    raise Stopped
                if not self._there[number]:
                    self._bring(number, fill)

    def answer_orphans(self) -> None:
        """Lets those go on whose questions a helper before us had read and not answered. Only when nothing is
        missing."""
        for number in range(3, _ORPHANS):
            try:
                os.write(self.group, struct.pack("=iI", number, sc.FAN_ALLOW))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EINVAL):
                    raise

    # --- the end ----------------------------------------------------------------------------------------------------
    def stop(self) -> None:
        """Read no more questions; those that were read are answered first. Who asks from now on waits."""
        if self._thread is not None:
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            self._thread = None
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def close(self) -> None:
        """Stop, and let go of the descriptors; if nobody else has them the watch ends."""
        self._closed = True
        self.stop()
        with self._filling:               # nobody writes to a number that means another file by then
            for fd in (self.group, self.data, self._wake):
                os.close(fd)


def _range_of(info: bytes) -> tuple[int, int]:
    """Offset and size in the records behind an event; all of the file where there is no range."""
    at = 0
    while at + _INFO.size <= len(info):
        kind, _, length = _INFO.unpack_from(info, at)
        if kind == _RANGE_INFO:
            _, offset, size = _RANGE.unpack_from(info, at + _INFO.size)
            return offset, size
        at += max(length, _INFO.size)
    return 0, 0
