"""The helper's side of the keeper: finds or starts it, asks it, hears of exits. The only client of the protocol.

An exec that is to be attached runs in three steps, so that no output is lost and no input comes too early::

    pid = await keeper.exec_prepare(id, exec_id, process, stdio)    # namespaces entered, program found, not yet run
    sock = await keeper.attach(id, exec_id, stdin=True, stdout=True, stderr=True)
    await keeper.exec_start(id, exec_id)                            # execve has happened when it returns

:meth:`Keeper.exec` does the first and the last for detached ones.
"""

from __future__ import annotations

import asyncio
import builtins
import os
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

from backend.runtime import finding
from backend.runtime.copies import Copies, Copy, Key, Peer
from backend.runtime.plan import Overlay
from backend.runtime.protocol import (
    MAX_MESSAGE,
    VERSION,
    ClientWish,
    Exit,
    IndexResult,
    KeeperContainer,
    KeeperError,
    KeeperExec,
    LogTarget,
    Op,
    Stdio,
    UnpackResult,
    decode,
    encode,
)
from backend.runtime.syscalls import Inbox, send_fds
from backend.runtime.upgrade import build_id

__all__ = [
    "Exit",
    "IndexResult",
    "Keeper",
    "KeeperContainer",
    "KeeperError",
    "KeeperExec",
    "LogTarget",
    "Overlay",
    "Stdio",
    "UnpackResult",
]

_Reply = tuple[dict[str, Any], list[int]]
PATIENCE = 15.0  # seconds that a request waits while a lost keeper is being replaced
_BUSY_TRIES = 60  # 50 ms apart
_LOST = "the connection to the keeper is lost"
# What may be asked again of a new keeper: it changes nothing, or its first half died with the old one.
_REPEATABLE = frozenset(
    {Op.CREATE, Op.EXEC, Op.LIST, Op.NETNS, Op.USERNS, Op.RESIZE, Op.WATCH_LOG, Op.DELETE, Op.COPIES, Op.ATTACH}
    | {Op.KILL, Op.ENTRUST, Op.ENTRUSTED}
)


class Keeper:
    """The keeper, for one event loop. It is the same object when a keeper that was lost has been replaced.

    While there is none, requests wait (up to :data:`PATIENCE`). One that was under way is asked again if that is safe,
    or answered from what the new keeper finds; otherwise it fails with reason "lost".
    """

    def __init__(self, sock: socket.socket, on_exit: Callable[[Exit], None], on_lost: Callable[[], None]) -> None:
        """Use :meth:`connect`."""
        self._sock = sock
        self._on_exit = on_exit
        self._on_lost = on_lost
        self._on_log: dict[str, Callable[[], None]] = {}
        self._entrusted: dict[str, builtins.list[int]] = {}
        self._waiting: dict[int, asyncio.Future[_Reply]] = {}
        self._next = 0
        self._inbox = Inbox(MAX_MESSAGE)
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._up = asyncio.Event()  # requests may go out
        self._closed = False
        self.pid = 0
        self.outdated = ""  # why the keeper runs older code than ours
        self.held = Copies()

    # --- connecting -------------------------------------------------------------------------------------------------
    @classmethod
    def find_or_start(cls, exec_root: str) -> socket.socket:
        """A connected socket; starts a keeper if none answers. Blocking: in a thread once the event loop runs."""
        return finding.find_or_start(exec_root)

    @classmethod
    async def connect(
        cls, sock: socket.socket, *, on_exit: Callable[[Exit], None], on_lost: Callable[[], None]
    ) -> Keeper:
        """Speaks through *sock*. *on_exit* and *on_lost* are called in the loop."""
        keeper = cls(sock, on_exit, on_lost)
        await keeper._greet()
        for container in await keeper.list():
            if container.status != "stopped":
                reply = await keeper._ask(Op.COPIES, id=container.id)
                keeper._hold((container.id, ""), Stdio(**reply[0]["stdio"]), reply)
        return keeper

    async def _greet(self) -> bool:
        """Begins to speak. True: it is another keeper than before."""
        self._sock.setblocking(False)
        self._loop.add_reader(self._sock.fileno(), self._readable)
        answer, _ = await self._send(Op.HELLO)
        if answer["version"] != VERSION or answer.get("build") != finding.build():
            await self._become_newer(answer["version"])
        before, self.pid = self.pid, int(answer["pid"])
        if not before:
            self._up.set()
        return before not in (0, self.pid)

    async def _become_newer(self, version: int) -> None:
        """The keeper was started by another version of the program: it becomes ours, its containers run on."""
        try:
            await self._upgrade(force=True)
        except KeeperError as error:
            if error.reason == "lost":
                raise
            self.outdated = error.message
            if version != VERSION:
                text = f"the running keeper speaks version {version}, this helper {VERSION}, and it cannot be upgraded"
                raise KeeperError("start", "other", f"{text}: {error.message}; stop its containers first") from error

    async def upgrade(self) -> None:
        """Has the keeper execute the program anew as it is on disk now, with everything it holds kept.

        KeeperError with reason "busy" if something was always under way.
        """
        await self._available()
        await self._upgrade(force=False)
        self.outdated = ""

    async def _upgrade(self, *, force: bool) -> None:
        fields = {"argv0": sys.executable, "program": finding.PROGRAM, "build": build_id(), "force": force}
        python = finding.interpreter()
        try:
            for attempt in range(_BUSY_TRIES):
                try:
                    await self._send(Op.UPGRADE, [python], **fields)
                    return
                except KeeperError as error:
                    if error.reason != "busy" or attempt == _BUSY_TRIES - 1:
                        raise
                await asyncio.sleep(0.05)
        finally:
            os.close(python)

    async def replace(self, sock: socket.socket) -> builtins.list[KeeperContainer]:
        """Goes on with the keeper behind *sock* after a loss: it gets the copies, logs are watched again.

        Returns what it knows then; ends that came while nobody listened are only there. Requests go out after
        :meth:`resume`.
        """
        self._drop_socket()
        self._sock = sock
        if await self._greet():
            for (id, exec_id), copy in self.held.items():
                await self._hand_over(id, exec_id, copy)
        for name, fds in self._entrusted.items():
            await self._send(Op.ENTRUST, fds, name=name)
        for id, grown in list(self._on_log.items()):
            await self._send(Op.WATCH_LOG, id=id, on=True)
            grown()  # what came meanwhile was not told
        return await self._list_by(self._send)

    def resume(self) -> None:
        """Lets the requests go that waited."""
        if self._sock.fileno() >= 0:
            self._up.set()

    async def _hand_over(self, id: str, exec_id: str, copy: Copy) -> None:
        """Gives a new keeper one process's descriptors and its clients; ours stay copies."""
        if not copy.started:
            self.held.drop(id, exec_id)  # it waited for a word that cannot come, and has left
            return
        copy.sweep()
        for peer in [one for one in copy.peers if not copy.stdio.tty and one.torn()]:
            copy.peers.remove(peer)
            peer.end()
        fds = [*copy.fds.values(), *(peer.sock.fileno() for peer in copy.peers[:32])]
        fields: dict[str, Any] = {"id": id, "exec_id": exec_id, "pid": copy.pid, "stdio": asdict(copy.stdio)}
        try:
            await self._send(
                Op.ADOPT, fds, names=list(copy.fds), clients=[asdict(one.wish) for one in copy.peers[:32]], **fields
            )
        except KeeperError as error:
            if error.reason == "lost":
                raise
            for peer in copy.peers:  # it is not there any more: its clients hear the end
                peer.end()
            copy.peers.clear()
            self.held.drop(id, exec_id)

    def close(self) -> None:
        """Leaves; the keeper and its containers go on."""
        self._closed = True
        self._drop_socket()
        self._up.set()  # whoever waits is told
        self.held.clear()

    def _drop_socket(self) -> None:
        self._up.clear()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
        for _, fds in self._queue:
            for fd in fds:
                os.close(fd)
        self._queue.clear()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(KeeperError("keeper", "lost", _LOST))

    # --- messages ---------------------------------------------------------------------------------------------------
    async def _ask(self, op: Op, fds: builtins.list[int] | None = None, **fields: Any) -> _Reply:
        """One request, after a replacement that is under way; asked again if the keeper is lost and that is safe."""
        while True:
            await self._available()
            try:
                return await self._send(op, fds, **fields)
            except KeeperError as error:
                if error.reason != "lost" or op not in _REPEATABLE or self._closed:
                    raise

    async def _available(self) -> None:
        if not self._up.is_set() and not self._closed:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._up.wait()
            except TimeoutError:
                raise KeeperError("keeper", "lost", "the keeper is gone and could not be replaced yet") from None

    async def _send(self, op: Op, fds: builtins.list[int] | None = None, **fields: Any) -> _Reply:
        if self._sock.fileno() < 0:
            raise KeeperError("keeper", "lost", _LOST)
        self._next += 1
        number = self._next
        data = encode({"n": number, "op": op.value, **fields})
        future: asyncio.Future[_Reply] = self._loop.create_future()
        self._waiting[number] = future
        # Copies, because the caller may close its own before the message is out.
        self._queue.append((data, [os.dup(fd) for fd in fds or []]))
        self._flush()
        return await future

    def _flush(self) -> None:
        while self._queue:
            data, fds = self._queue[0]
            try:
                send_fds(self._sock, data, fds)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError:
                self._lost()
                return
            self._queue.popleft()
            for fd in fds:
                os.close(fd)
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        while self._sock.fileno() >= 0:
            try:
                data, fds = self._inbox.receive(self._sock)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._lost()
                return
            self._take(decode(data), fds)

    def _take(self, message: dict[str, Any], fds: builtins.list[int]) -> None:
        event = message.get("event")
        if event == "exit":
            end = Exit.from_wire(message)
            self.held.drop(end.id, end.exec_id)
            self._on_exit(end)
        elif event == "stdin":
            self.held.close_stdin(str(message["id"]), str(message["exec_id"]))
        elif event == "log":
            call = self._on_log.get(str(message["id"]))
            if call is not None:
                call()
        else:
            future = self._waiting.pop(int(message["n"]), None)
            if future is not None and not future.done():
                if "error" in message:
                    future.set_exception(KeeperError.from_wire(message["error"]))
                else:
                    future.set_result((message["ok"], fds))
                    return
        for fd in fds:
            os.close(fd)

    def _lost(self) -> None:
        if self._sock.fileno() < 0:
            return
        self._drop_socket()
        self._on_lost()

    # --- requests ---------------------------------------------------------------------------------------------------
    async def create(
        self, id: str, bundle: str, *, overlay: Overlay | None, stdio: Stdio, log: LogTarget,
        netns: int | None = None, userns: int | None = None, runtime: str = "",
    ) -> int:
        """Makes a container up to the point before its program runs; returns the pid of its first process.

        *runtime*: "runc" or "crun" makes it instead of the built-in one (reason ``not_installed`` if it is not there).
        """
        given = {name: fd for name, fd in (("network", netns), ("user", userns)) if fd is not None}
        reply = await self._ask(
            Op.CREATE, list(given.values()), id=id, bundle=bundle, stdio=asdict(stdio), log=asdict(log),
            overlay=asdict(overlay) if overlay is not None else None, runtime=runtime, given=list(given),
        )  # fmt: skip
        return self._hold((id, ""), stdio, reply)

    def _hold(self, key: Key, stdio: Stdio, reply: _Reply) -> int:
        """Keeps the copies that an answer brought; gives the pid."""
        answer, fds = reply
        pid = int(answer["pid"])
        self.held.put(*key, Copy(pid, stdio, dict(zip(answer["fds"], fds, strict=True)), started=not key[1]))
        return pid

    async def start(self, id: str) -> int:
        """Runs the program; returns the time (ns) once execve has happened.

        If the keeper is lost in this moment, the next one says whether it ran.
        """
        try:
            answer, _ = await self._ask(Op.START, id=id)
            return int(answer["started_at"])
        except KeeperError as error:
            if error.reason != "lost":
                raise
            found = next((one for one in await self.list() if one.id == id and one.started_at), None)
            if found is None:
                raise
            return found.started_at

    async def exec_prepare(self, id: str, exec_id: str, process: dict[str, Any], stdio: Stdio) -> int:
        """Enters the container and finds the program of OCI *process*; returns the pid. Then :meth:`exec_start`."""
        reply = await self._ask(Op.EXEC, id=id, exec_id=exec_id, process=process, stdio=asdict(stdio))
        return self._hold((id, exec_id), stdio, reply)

    async def exec_start(self, id: str, exec_id: str) -> int:
        """Runs a prepared exec; returns the pid of its program.

        KeeperError with reason "no_such": it was lost with its keeper; prepare it again. If the keeper is lost in this
        moment, the exec's end tells: 125 if it never ran.
        """
        await self._available()
        copy = self.held.get(id, exec_id)
        if copy is not None:
            copy.started = True
        try:
            answer, fds = await self._ask(Op.EXEC_START, id=id, exec_id=exec_id)
        except KeeperError as error:
            if error.reason == "lost" and copy is not None and not self._closed:
                await self._available()
                return copy.pid
            self.held.drop(id, exec_id)
            raise
        if fds:
            self.held.renew(id, exec_id, int(answer["pid"]), fds[0])
        return int(answer["pid"])

    async def exec(self, id: str, exec_id: str, process: dict[str, Any], stdio: Stdio) -> int:
        """Prepares and runs in one go, for an exec that nobody attaches to."""
        await self.exec_prepare(id, exec_id, process, stdio)
        return await self.exec_start(id, exec_id)

    async def kill(self, id: str, signal: int, exec_id: str = "", every: bool = False) -> None:
        """Signals the process, or with *every* all of the container's."""
        await self._ask(Op.KILL, id=id, signal=int(signal), exec_id=exec_id, every=every)

    async def resize(self, id: str, rows: int, columns: int, exec_id: str = "") -> None:
        """Sets a terminal's size."""
        await self._ask(Op.RESIZE, id=id, rows=rows, columns=columns, exec_id=exec_id)

    async def attach(
        self, id: str, exec_id: str = "", *, stdin: bool, stdout: bool, stderr: bool, peer: socket.socket | None = None,
        framed: bool | None = None,
    ) -> socket.socket | None:
        """A non-blocking stream socket to the process's streams (raw for a terminal, Docker's frames otherwise;
        *framed* says which of the two).

        With *peer* the keeper takes that end of a pair of the caller's (which the caller closes), and None is returned.
        """
        wish = ClientWish(stdin, stdout, stderr, framed)
        ours, theirs = (None, peer) if peer is not None else socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            await self._ask(
                Op.ATTACH, [theirs.fileno()], id=id, exec_id=exec_id, **asdict(wish)
            )
        except BaseException:
            if ours is not None:
                ours.close()
                theirs.close()
            raise
        copy = self.held.get(id, exec_id)
        if copy is not None:
            copy.sweep()
            copy.peers.append(Peer(theirs.dup() if ours is None else theirs, wish))
        elif ours is not None:
            theirs.close()
        if ours is not None:
            ours.setblocking(False)
        return ours

    async def delete(self, id: str) -> None:
        """Forgets a container that is dead or was only created."""
        await self._ask(Op.DELETE, id=id)
        self.held.drop(id)

    async def list(self) -> list[KeeperContainer]:
        """All containers that the keeper knows."""
        return await self._list_by(self._ask)

    async def _list_by(self, ask: Callable[..., Awaitable[_Reply]]) -> builtins.list[KeeperContainer]:
        found: builtins.list[KeeperContainer] = []
        start = 0
        while True:
            answer, _ = await ask(Op.LIST, start=start)
            found += [KeeperContainer.from_wire(entry) for entry in answer["containers"]]
            start = int(answer["next"])
            if not start:
                return found

    async def netns(self, count: int = 1) -> builtins.list[int]:
        """Descriptors of *count* (1 to 16) fresh network namespaces."""
        return (await self._ask(Op.NETNS, count=count))[1]

    async def userns(
        self, uids: Sequence[dict[str, int]], gids: Sequence[dict[str, int]]
    ) -> tuple[int, int]:
        """Descriptors of a user namespace with these ranges (OCI's form) and of a network namespace in it."""
        user, net = (await self._ask(Op.USERNS, uids=list(uids), gids=list(gids)))[1]
        return user, net

    async def unpack(self, tar: int, target: int) -> UnpackResult:
        """Unpacks a tar into a directory, in a confined child."""
        answer, _ = await self._ask(Op.UNPACK, [tar, target])
        return UnpackResult(int(answer["entries"]), int(answer["size"]))

    async def index(self, tar: int, index: int) -> IndexResult:
        """Writes a tar's EROFS index, in a confined child."""
        answer, _ = await self._ask(Op.INDEX, [tar, index])
        return IndexResult(int(answer["entries"]), int(answer["size"]))

    async def entrust(self, name: str, fds: builtins.list[int]) -> None:
        """Has the keeper (and each that replaces it) keep copies of *fds* under *name*; none: no longer.

        They must stay open here until then: a new keeper gets them from us.
        """
        if fds:
            self._entrusted[name] = fds
        else:
            self._entrusted.pop(name, None)
        await self._ask(Op.ENTRUST, fds, name=name)

    async def entrusted(self, name: str) -> builtins.list[int]:
        """Copies of what was entrusted under *name*, perhaps by a helper before this one."""
        return (await self._ask(Op.ENTRUSTED, name=name))[1]

    async def files(self, fds: builtins.list[int], **request: Any) -> int:
        """Starts a confined child on a file tree, for :class:`backend.runtime.filejob.FileJob`; returns its pidfd."""
        return (await self._ask(Op.FILES, fds, **request))[1][0]

    async def watch_log(self, id: str, call: Callable[[], None] | None) -> None:
        """Calls *call* in the loop whenever the log of *id* has grown; None ends it."""
        if call is None:
            self._on_log.pop(id, None)
        else:
            self._on_log[id] = call
        await self._ask(Op.WATCH_LOG, id=id, on=call is not None)

    async def stop(self) -> None:
        """Asks the keeper to leave; KeeperError if it holds a living container."""
        gone = asyncio.Event()
        told, self._on_lost = self._on_lost, gone.set
        try:
            await self._ask(Op.STOP)
        except KeeperError:
            self._on_lost = told
            raise
        await gone.wait()
