"""Commands that run in running containers."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field

from backend.engine import spec
from backend.engine.container import Container
from backend.engine.core import Core
from backend.engine.names import new_id
from backend.engine.streams import Session
from backend.errors import Conflict, InvalidArgument, NotFound, ServerError
from backend.runtime.client import KeeperError, Stdio
from backend.runtime.filejob import FileJob, Look
from backend.spec import api

#: Finished execs that stay known for inspect, for each container.
KEPT = 64
_READY_PATIENCE = 10.0             # seconds that a resize waits for its exec to run
_NOT_FOUND, _NOT_PERMITTED = 127, 126


@dataclass(slots=True, eq=False)
class Exec:
    """One exec. `exit_code` None: it has not ended."""

    id: str
    container: Container
    body: api.ExecCreate
    tty: bool
    state: str = "created"         # created, starting, running, ended
    pid: int = 0
    exit_code: int | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    tell_end: bool = True

    @property
    def running(self) -> bool:
        """It has a process."""
        return self.state in ("starting", "running")

    def exited(self, code: int) -> None:
        """The keeper's news of its end."""
        self.state, self.exit_code = "ended", code
        self.ready.set()
        self.ended.set()

    def container_ended(self, code: int) -> None:
        """Its container has ended, and it with it."""
        if self.running:
            self.exited(code if self.exit_code is None else self.exit_code)


class Execs:
    """All execs of the engine. They live in memory: they end with their container's run."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._all: dict[str, Exec] = {}

    def get(self, exec_id: str) -> Exec:
        """By ID. Raises :class:`NotFound`."""
        found = self._all.get(exec_id)
        if found is None or found.container.removed:
            self._all.pop(exec_id, None)
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    @staticmethod
    def _check_running(container: Container) -> None:
        if container.status.state == "paused":
            raise Conflict(f"Container {container.name} is paused, unpause the container before exec")
        if container.status.state == "restarting":
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if container.status.state != "running":
            raise Conflict(f"container {container.id} is not running")

    async def create(self, ref: str, body: api.ExecCreate) -> str:
        """Note an exec; nothing runs yet. Returns its ID."""
        container = self._core.table.get(ref)
        self._check_running(container)
        if not body.cmd:
            raise InvalidArgument("No exec command specified")
        if body.working_dir and not body.working_dir.startswith("/"):
            raise InvalidArgument(f"the working directory '{body.working_dir}' is invalid, "
                                  "it needs to be an absolute path")
        for entry in body.env:
            if not entry or entry.startswith("="):
                raise InvalidArgument(f"invalid environment variable: {entry}")
        await self._check_user(container, body.user)
        made = Exec(new_id(), container, body, body.tty)
        self._all[made.id] = container.execs[made.id] = made
        self._prune(container)
        self._tell(made, f"exec_create: {' '.join(body.cmd)}")
        return made.id

    async def _check_user(self, container: Container, user: str) -> None:
        """Refuse a user whom the container does not know: the start's refusal comes when clients expect a stream."""
        if not user or all(part.isascii() and part.isdigit() for part in user.split(":")):
            return
        try:
            look = Look(id=container.id)
            async with await FileJob.start(self._core.keeper, look, {"kind": "user", "user": user}) as job:
                await job.report("user")
        except KeeperError as error:
            if error.reason == "no_user":
                raise InvalidArgument(error.message) from error
            self._check_running(container)
            raise ServerError(f"the user {user} cannot be looked up in container {container.id}: "
                              f"{error.message}") from error

    def _prune(self, container: Container) -> None:
        over = [one for one in container.execs.values() if one.state == "ended"][:-KEPT]
        for one in over:
            del container.execs[one.id]
            self._all.pop(one.id, None)

    def drop_container(self, container: Container) -> None:
        """Forget the execs of a container that is gone."""
        for identity in container.execs:
            self._all.pop(identity, None)
        container.execs.clear()

    async def start(self, exec_id: str, *, detach: bool, tty: bool, rows: int = 0, columns: int = 0) -> Session | None:
        """Run it. A program that cannot run is told through the session, as clients expect; a detached one raises.

        *tty* is what the client takes the stream for: raw bytes, or frames, which it may also want from a terminal.
        """
        one = self.get(exec_id)
        if one.state != "created":
            raise Conflict(f"exec command {exec_id} has already run" if one.state == "ended" else
                           f"exec command {exec_id} is already running")
        self._check_running(one.container)
        one.state = "starting"
        if not (rows or columns) and len(one.body.console_size) == 2:
            rows, columns = one.body.console_size
        try:
            session = await self._run(one, detach, tty, rows, columns)
        except KeeperError as error:
            return self._failed(one, error, detach, tty)
        if one.state == "starting":
            one.state = "running"
        one.ready.set()
        self._tell(one, f"exec_start: {' '.join(one.body.cmd)}")
        self._core.spawn(self._watch(one), f"exec {one.id[:12]}")
        return session

    async def _run(self, one: Exec, detach: bool, tty: bool, rows: int, columns: int) -> Session | None:
        stdio = Stdio(one.tty, one.body.attach_stdin and not detach, True, rows, columns)
        try:
            return await self._try(one, detach, tty, stdio)
        except KeeperError as error:
            if error.reason != "no_such":
                raise
        return await self._try(one, detach, tty, stdio)   # the keeper was replaced before the program could run

    async def _try(self, one: Exec, detach: bool, tty: bool, stdio: Stdio) -> Session | None:
        container, keeper, body = one.container, self._core.keeper, one.body
        process = spec.exec_process(container.record, body, container.hostname or container.id[:12])
        one.pid = await keeper.exec_prepare(container.id, one.id, process, stdio)
        sock: socket.socket | None = None
        try:
            if not detach:
                sock = await keeper.attach(container.id, one.id, stdin=body.attach_stdin, stdout=body.attach_stdout,
                                           stderr=body.attach_stderr, framed=not tty)
            one.pid = await keeper.exec_start(container.id, one.id)
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        return None if detach else Session(tty, sock)

    def _failed(self, one: Exec, error: KeeperError, detach: bool, tty: bool) -> Session | None:
        if error.reason == "not_running":
            one.exited(_NOT_PERMITTED)
            raise Conflict(f"container {one.container.id} is not running") from error
        one.exited(_NOT_FOUND if error.reason in ("not_found", "bad_cwd") else _NOT_PERMITTED)
        self._tell(one, f"exec_start: {' '.join(one.body.cmd)}")
        self._tell(one, "exec_die", exitCode=str(one.exit_code))
        text = error.message if error.reason == "no_user" else (
            f"OCI runtime exec failed: exec failed: unable to start container process: {error.message}")
        if detach:
            theirs_to_mend = error.reason in ("not_found", "not_permitted", "no_user")
            raise (InvalidArgument if theirs_to_mend else ServerError)(text) from error
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        line = text.encode() + b"\r\n"
        theirs.sendall(line if tty else struct.pack(">BxxxL", 1, len(line)) + line)
        theirs.close()
        ours.setblocking(False)
        return Session(tty, ours)

    def detached(self, exec_id: str) -> None:
        """Its client has left by the detach keys; it runs on."""
        self._tell(self.get(exec_id), "exec_detach")

    async def _watch(self, one: Exec) -> None:
        await one.ended.wait()
        self._tell(one, "exec_die", exitCode=str(one.exit_code))

    def _tell(self, one: Exec, action: str, **more: str) -> None:
        self._core.events.publish("container", action, one.container.id,
                                  one.container.attributes(execID=one.id, **more),
                                  image=one.container.record.image_name)

    async def resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Set its terminal's size; waits until it runs, because clients ask at once."""
        one = self.get(exec_id)
        try:
            async with asyncio.timeout(_READY_PATIENCE):
                await one.ready.wait()
        except TimeoutError:
            raise ServerError("timeout waiting for exec session ready") from None
        if not one.tty:
            return
        try:
            await self._core.keeper.resize(one.container.id, rows, columns, one.id)
        except KeeperError as error:
            if error.reason in ("not_running", "no_such"):
                return                      # it was quicker than its client's first resize
            raise ServerError(f"cannot resize exec {exec_id[:12]}: {error.message}") from error

    def inspect(self, exec_id: str) -> api.ExecInspect:
        """What it runs, and how it ended."""
        one = self.get(exec_id)
        body = one.body
        return api.ExecInspect(
            id=one.id, running=one.running, exit_code=one.exit_code,
            process_config=api.ExecProcess(tty=one.tty, entrypoint=body.cmd[0], arguments=list(body.cmd[1:]),
                                           privileged=body.privileged,
                                           user=body.user or one.container.record.config.user or api.UNSET),
            open_stdin=body.attach_stdin, open_stderr=body.attach_stderr, open_stdout=body.attach_stdout,
            container_id=one.container.id, detach_keys=body.detach_keys, pid=one.pid)
