"""The keeper's containers and execs: how requests change them, how they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from backend.logs import LogWriter
from backend.runtime import init, spawn
from backend.runtime import syscalls as sc
from backend.runtime.adoption import descriptors
from backend.runtime.cgroups import Cgroup, CgroupError
from backend.runtime.confined import Confined
from backend.runtime.external import Born, External, Made, Order
from backend.runtime.files import Files
from backend.runtime.launch import Launch
from backend.runtime.loop import IN, Loop
from backend.runtime.model import Answer, Container, Process
from backend.runtime.plan import BadConfig, Overlay
from backend.runtime.protocol import Exit, KeeperError, LogTarget, Op, Stdio
from backend.runtime.protocol import field as get
from backend.runtime.pump import Streams
from backend.runtime.records import Records, State, birth, zombie_status
from backend.runtime.requests import Requests
from backend.runtime.spawn import Child, Machine
from backend.runtime.takeover import Takeover
from backend.runtime.tracing import Tracers, may_trace

_REFILL = 0.004  # seconds after a start: the client has its answer, and a burst is not slowed
_TRIES = 50  # 20 ms apart: until whoever inherited a dead process has collected it
_NO_HELPER = 1.0  # seconds that output found again waits for a helper with clients
_LINGER = 2.0  # seconds that a dead process's streams stay open for children that hold them, as moby's


class Containers:
    """All of them. Every method runs in the keeper's only thread and returns at once."""

    def __init__(
        self,
        loop: Loop,
        machine: Machine,
        exec_root: str,
        tell: Callable[[dict[str, Any]], None],
        log_grown: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._machine = machine
        self._records = Records(exec_root)
        self._tell = tell
        self._log_grown = log_grown
        self._all: dict[str, Container] = {}
        self._watched: set[str] = set()
        self._confined = Confined(loop, machine)
        self._trees = Files(loop, machine, exec_root)
        self._requests = Requests(self._all, self._process)
        self._tracers = Tracers()
        self.takeover = Takeover(
            self, self._all, loop, records=self._records, pool=machine.pool, tracers=self._tracers
        )
        self._external = External(loop, exec_root, self._child_pids)
        self._handlers: dict[Op, Callable[[dict[str, Any], list[int], Answer], None]] = {
            Op.CREATE: self._create,
            Op.START: self._start,
            Op.EXEC: self._exec,
            Op.EXEC_START: self._exec_start,
            Op.KILL: self._requests.kill,
            Op.RESIZE: self._requests.resize,
            Op.ATTACH: self._requests.attach,
            Op.DELETE: self._delete,
            Op.LIST: self._list,
            Op.NETNS: self._requests.netns,
            Op.USERNS: self._requests.userns,
            Op.UNPACK: self._confined.unpack,
            Op.INDEX: self._confined.index,
            Op.FILES: self._files,
            Op.COPIES: self.takeover.copies,
            Op.ADOPT: self.takeover.adopt,
        }

    def begin(self, frozen: list[dict[str, Any]] | None) -> None:
        """Takes over what a keeper before this one left; *frozen*: what it gave when it became this one."""
        self.takeover.restore(find=frozen is None)
        self.takeover.thaw(frozen or [])
        self._loop.later(_NO_HELPER, self.takeover.read_on)
        self._machine.pool.open(self._loop)

    def handle(self, op: Op, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        """One request; *fds* are closed by the caller afterwards. Raises :class:`KeeperError`."""
        handler = self._handlers.get(op)
        if handler is None:
            raise KeeperError("keeper", "other", f"request {op.value} is not available")
        handler(message, fds, answer)

    def require_empty(self) -> None:
        """Raises if a container is still alive."""
        alive = [id for id, c in self._all.items() if c.process.status != "stopped"]
        if alive:
            raise KeeperError("stop", "other", f"the keeper still holds {len(alive)} containers")

    def watch_log(self, id: str, on: bool) -> None:
        """Whether growth of *id*'s log is told."""
        (self._watched.add if on else self._watched.discard)(id)

    # --- finding ----------------------------------------------------------------------------------------------------
    def _container(self, message: dict[str, Any], stage: str) -> Container:
        id = get(message, "id", "str")
        found = self._all.get(id)
        if found is None:
            raise KeeperError(stage, "no_such", f"no such container: {id}")
        return found

    def _process(self, message: dict[str, Any], stage: str) -> Process:
        container = self._container(message, stage)
        exec_id = get(message, "exec_id", "str", "")
        if not exec_id:
            return container.process
        found = container.execs.get(exec_id)
        if found is None:
            raise KeeperError(stage, "no_such", f"no such exec: {exec_id}")
        return found

    # --- create and start -------------------------------------------------------------------------------------------
    def _create(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        id, bundle = get(message, "id", "str"), get(message, "bundle", "str")
        old = self._all.get(id)
        if old is not None:
            if old.process.status != "stopped":
                raise KeeperError("create", "exists", f"container {id} exists and is {old.process.status}")
            self._forget(old)
        stdio, log = Stdio(**get(message, "stdio", "dict")), LogTarget(**get(message, "log", "dict"))
        given = message.get("overlay")
        overlay = Overlay(**{**given, "lower": tuple(given["lower"])}) if given else None
        launch: Launch | None = None
        if runtime := get(message, "runtime", "str", ""):
            netns, granted = fds[0] if fds else -1, self._machine.capabilities
            self._create_external(Order(id, runtime, bundle, {}, overlay, stdio, netns, granted), log, answer)
            return
        try:
            config = spawn.read_config(bundle)
            linux = config.get("linux") or {}
            group = Cgroup(str(linux.get("cgroupsPath") or f"slipway/{id}"))
            launch, flags = spawn.container_launch(
                self._machine,
                id=id,
                bundle=bundle,
                config=config,
                overlay=overlay,
                stdio=stdio,
                given=_named_namespaces(message, fds),
                group=group,
            )
            child = spawn.spawn(self._machine, launch, stdio)
        except (BadConfig, CgroupError, OSError, ValueError) as error:
            raise spawn.refusal("create", error) from error
        finally:
            spawn.close_opened(launch, fds)
        process = self._process_of(id, "", child, stdio, answer)
        container = Container(process, group, flags, bundle, log, linux.get("seccomp"), launch.maps)
        self._all[id] = container
        if may_trace(launch.process.capabilities.bounding, own_ids=launch.maps is not None):
            self._tracers.note(process.pid)
        if not stdio.tty:
            self.make_streams(container, process, child.outputs, child.stdin)
        try:
            # While the child is already on its way: it waits for the word before it joins.
            group.create(linux.get("resources") or {})
            child.sync.send(init.JOIN)
            container.pipes = tuple(os.fstat(fd).st_ino for fd in child.outputs.values())
            self._save(container)  # on disk before the answer, while the child is busy
        except (CgroupError, OSError, ValueError) as error:
            self.fail(process, spawn.refusal("create", error))

    def _create_external(self, order: Order, log: LogTarget, answer: Answer) -> None:
        """As :meth:`_create`, by another runtime."""
        process = Process(order.id, "", 0, -1, order.stdio, answer=answer)
        try:
            config = spawn.read_config(order.bundle)
            linux = config.get("linux") or {}
            flags = spawn.namespace_flags(linux.get("namespaces") or [])
            group = Cgroup(str(linux.get("cgroupsPath") or f"slipway/{order.id}"))
            container = Container(process, group, flags, order.bundle, log, linux.get("seccomp"), runtime=order.runtime)
            made = self._external.create(
                replace(order, config=config),
                lambda born: self._born(container, made, born),
                lambda error: self._unborn(container, made, error),
            )
        except (BadConfig, CgroupError, OSError, ValueError) as error:
            raise spawn.refusal("create", error) from error
        self._all[order.id] = container

    def _born(self, container: Container, made: Made, born: Born) -> None:
        """The other runtime has created it: from here on it is a container like all."""
        process = container.process
        process.pid, process.pidfd = born.pid, born.pidfd
        self._loop.watch(born.pidfd, IN, lambda _: self.exited(process))
        if born.terminal < 0:
            container.pipes = tuple(os.fstat(fd).st_ino for fd in made.outputs.values())
            self.make_streams(container, process, made.outputs, made.stdin)
        self._save(container)
        self._ready(process, [born.terminal] if born.terminal >= 0 else [])

    def _unborn(self, container: Container, made: Made, error: KeeperError) -> None:
        for fd in (*made.outputs.values(), *([made.stdin] if made.stdin >= 0 else [])):
            os.close(fd)
        process = container.process
        process.failed = error
        self._failed(container, process)

    def _child_pids(self) -> set[int]:
        """The children that are somebody's."""
        return {process.pid for c in self._all.values() for process in (c.process, *c.execs.values())}

    def _process_of(self, id: str, exec_id: str, child: Child, stdio: Stdio, answer: Answer) -> Process:
        process = Process(id, exec_id, child.pid, child.pidfd, stdio, sync=child.sync, answer=answer)
        process.outputs, process.stdin = child.outputs, child.stdin
        process.hidden = child.hidden
        self._loop.watch(child.sync.fileno(), IN, lambda _: self._heard(process))
        self._loop.watch(child.pidfd, IN, lambda _: self.exited(process))
        return process

    def make_streams(self, container: Container, process: Process, outputs: dict[int, int], stdin: int, *,
                     resumes: bool = False) -> None:  # fmt: skip
        """Pumps a process's streams from now on. *resumes*: another keeper did before."""
        log = None
        try:
            log = self._log_of(container, process, resumes)
        except OSError as error:
            if process.status in ("running", "stopped"):  # taken over: no reason to end it
                sys.excepthook(type(error), error, error.__traceback__)
            else:
                text = f"log {error.filename}: {error.strerror}"
                self.fail(process, KeeperError("create", "other", text, error.errno))
        once = process.stdio.stdin_once or bool(process.exec_id)

        def written() -> None:
            if process.id in self._watched:
                self._log_grown(process.id)

        def stdin_closed() -> None:  # the helper's copy would keep the input open
            self._tell({"event": "stdin", "id": process.id, "exec_id": process.exec_id})

        process.streams = Streams(self._loop, outputs, stdin, tty=process.stdio.tty, stdin_once=once, log=log,
                                  on_write=written, on_stdin_closed=stdin_closed)  # fmt: skip

    @staticmethod
    def _log_of(container: Container, process: Process, resumes: bool) -> LogWriter | None:
        if process.exec_id or container.log.driver == "none":
            return None
        target = container.log
        return LogWriter(target.directory, target.driver, target.max_size, target.max_files, resumes=resumes)

    def _heard(self, process: Process) -> None:
        """A word from a child before its execve: ready, an error, or the end of file that execve makes."""
        assert process.sync is not None
        try:
            data, fds = sc.recv_fds(process.sync, 1 << 16)
        except BlockingIOError:
            return
        if data == init.READY:
            self._ready(process, fds)
            return
        if data.startswith(init.INSIDE):
            self._inside(process, int(data[1:]), fds[0])
            return
        for fd in fds:
            os.close(fd)
        self._loop.forget(process.sync.fileno())
        process.sync.close()
        process.sync = None
        if data:
            report = json.loads(data)
            stage = "exec" if process.exec_id else "create" if process.status == "preparing" else "start"
            self.fail(process, KeeperError(stage, report["reason"], report["message"], report["errno"]))
        elif process.status == "starting":
            self._running(process)
        elif process.status in ("preparing", "created"):
            stage = "exec" if process.exec_id else "create"
            self.fail(process, KeeperError(stage, "other", "the first process died before it could start the program"))

    def _inside(self, process: Process, pid: int, pidfd: int) -> None:
        """The stage of a hidden exec has forked the process that is inside: that one counts from now on."""
        stage = process.pidfd
        process.pid, process.pidfd = pid, pidfd
        self._loop.watch(pidfd, IN, lambda _: self.exited(process))
        self._loop.watch(stage, IN, lambda _: self._stage_over(stage))

    def _stage_over(self, stage: int) -> None:
        self._loop.forget(stage)
        spawn.reap(stage)
        os.close(stage)

    def _ready(self, process: Process, fds: list[int]) -> None:
        container = self._all[process.id]
        if fds:
            self.make_streams(container, process, {1: fds[0]}, fds[0])
        if process.failed is not None:
            return  # it is being taken back
        process.status = "created"
        if process.answer is not None:
            answer, process.answer = process.answer, None
            names, copies = descriptors(process)
            answer({"pid": process.pid, "fds": names}, copies)

    def _save(self, container: Container) -> None:
        process, log = container.process, container.log
        self._records.save_state(
            State(
                process.id,
                process.pid,
                birth(process.pid),
                container.cgroup.path,
                container.flags,
                container.bundle,
                process.started_at,
                process.stdio.tty,
                process.stdio.stdin_once,
                (log.directory, log.driver, log.max_size, log.max_files),
                container.pipes,
            )
        )

    def _start(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        container = self._container(message, "start")
        if container.runtime and container.process.status == "created":
            self._start_external(container, answer)
        else:
            self._go(container.process, answer, "start")

    def _start_external(self, container: Container, answer: Answer) -> None:
        process = container.process
        process.status, process.answer = "starting", answer
        process.started_at = time.time_ns()
        self._save(container)

        def started() -> None:
            if process.status == "starting":
                self._running(process)

        def failed(error: KeeperError) -> None:
            if process.status == "starting":
                self.fail(process, error)

        try:
            self._external.start(process.id, container.runtime, started, failed)
        except (KeeperError, OSError) as error:
            self.fail(process, error if isinstance(error, KeeperError) else spawn.refusal("start", error))

    def _exec_start(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        self._go(self._process(message, "exec"), answer, "exec")

    def _go(self, process: Process, answer: Answer, stage: str) -> None:
        if process.status != "created" or process.sync is None:
            raise KeeperError(
                stage, "not_running" if process.status == "stopped" else "exists", f"{stage}: it is {process.status}"
            )
        process.status, process.answer = "starting", answer
        process.started_at = time.time_ns()
        if not process.exec_id:
            self._save(self._all[process.id])  # first: a keeper after us must not take a running one for a created one
        try:
            process.sync.send(init.GO)
        except OSError:
            pass  # it has died: its exit is told in a moment

    def _running(self, process: Process) -> None:
        process.status = "running"
        self._loop.later(_REFILL, self._machine.pool.fill)
        if process.answer is not None:
            answer, process.answer = process.answer, None
            names, copies = (["pidfd"], [process.pidfd]) if process.hidden else ([], [])
            answer({"pid": process.pid, "started_at": process.started_at, "fds": names}, copies)

    def fail(self, process: Process, error: KeeperError) -> None:
        """A start that cannot be: all is taken back before the answer is given, so nothing is left when it arrives."""
        process.failed = process.failed or error  # what follows from the first is not the reason
        try:
            signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass

    # --- exec -------------------------------------------------------------------------------------------------------
    def _exec(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        container = self._container(message, "exec")
        exec_id = get(message, "exec_id", "str")
        if container.process.status != "running":
            raise KeeperError("exec", "not_running", f"container {container.process.id} is not running")
        if not exec_id or exec_id in container.execs:
            raise KeeperError("exec", "exists", f"exec {exec_id!r} exists")
        stdio = Stdio(**get(message, "stdio", "dict"))
        try:
            launch = spawn.exec_launch(
                self._machine,
                process=get(message, "process", "dict"),
                seccomp=container.seccomp,
                stdio=stdio,
                group=container.cgroup,
                pidfd=container.process.pidfd,
                flags=container.flags,
                maps=container.maps,
                keyring=f"_ses.{container.process.id}",
                hidden=self._tracers.beside(container.process.pid),
            )
            child = spawn.spawn(self._machine, launch, stdio)
        except ProcessLookupError as error:
            raise KeeperError("exec", "not_running", f"container {container.process.id} is not running") from error
        except (BadConfig, OSError, ValueError) as error:
            raise spawn.refusal("exec", error) from error
        process = self._process_of(container.process.id, exec_id, child, stdio, answer)
        container.execs[exec_id] = process
        if may_trace(launch.process.capabilities.bounding, own_ids=container.maps is not None):
            self._tracers.note(container.process.pid)  # later ones are beside this one
        if not stdio.tty:
            self.make_streams(container, process, child.outputs, child.stdin)

    # --- the end ----------------------------------------------------------------------------------------------------
    def exited(self, process: Process) -> None:
        """Its pidfd says that it has ended."""
        if process.hidden and process.sync is not None:
            before = process.pidfd
            self._last_words(process)
            if process.pidfd != before:
                return  # it was the stage's end
        self._loop.forget(process.pidfd)
        try:
            status: int | None = spawn.reap(process.pidfd)
        except ChildProcessError:
            # Not our child: its parent was a keeper that is gone.
            status = sc.pidfd_exit_status(process.pidfd)
            if status is None:
                status = zombie_status(process.pid, process.birth)
            if status is None and process.tries < _TRIES:
                process.tries += 1
                self._loop.later(0.02, lambda: self.exited(process))
                return
            status = None if status is None else os.waitstatus_to_exitcode(status)
        if process.sync is not None:
            self._last_words(process)
        container = self._all[process.id]
        if process.failed is not None and (process.exec_id or process.started_at == 0):
            self._failed(container, process)
            return
        self.drain(process)
        code, number = (255, 0) if status is None else (status, 0) if status >= 0 else (128 - status, -status)
        if process.failed is not None:
            code, number = {"not_found": 127, "not_permitted": 126}.get(process.failed.reason, 128), 0
        oom = not process.exec_id and container.cgroup.oom_kills() > 0
        process.status = "stopped"
        process.exit = Exit(process.id, process.exec_id, code, number, time.time_ns(), oom, status is not None)
        if not process.exec_id:
            self._records.save_exit(process.exit)
        if process.answer is not None:
            answer, process.answer = process.answer, None
            answer(process.failed or {"pid": process.pid, "started_at": process.started_at})
        self._tell({"event": "exit", **process.exit.to_wire()})
        if process.streams is not None:
            process.streams.end_told()
        if not process.exec_id:
            self.drop_cgroup(container, 0)  # after the news: whoever waits need not wait for this
        if process.exec_id:
            self._end_exec(container, process)

    def drain(self, process: Process) -> None:
        """What a dead process has written; children of it may hold its streams open for a while."""
        streams = process.streams
        if streams is not None and not streams.drain():
            self._loop.later(_LINGER, streams.abandon)

    def _last_words(self, process: Process) -> None:
        """The child's report may wait unread when its end is seen first."""
        while process.sync is not None:
            before = process.sync
            self._heard(process)
            if process.sync is before and process.status != "created":
                break
            if process.sync is before:
                try:
                    if not before.recv(1, socket.MSG_PEEK):
                        continue
                except BlockingIOError:
                    break

    def _failed(self, container: Container, process: Process) -> None:
        """Before the program ran: nothing of it remains, and the answer is the error."""
        error = process.failed
        assert error is not None
        self._loop.later(_REFILL, self._machine.pool.fill)
        self._release(process)
        if process.exec_id:
            container.execs.pop(process.exec_id, None)
            self._answer_failure(process, error)
            return
        self._all.pop(process.id, None)
        self._records.forget(process.id)
        self._external.forget(process.id)
        container.cgroup.kill()
        self.drop_cgroup(container, 0, lambda: self._answer_failure(process, error))

    @staticmethod
    def _answer_failure(process: Process, error: KeeperError) -> None:
        if process.answer is not None:
            answer, process.answer = process.answer, None
            answer(error)

    def drop_cgroup(self, container: Container, tries: int, then: Callable[[], None] | None = None) -> None:
        """Removes it, a few times if its last processes are still on their way out."""
        if tries and self._all.get(container.process.id, container) is not container:
            return  # a new container has this name and this cgroup
        if not container.cgroup.remove() and tries < 50:
            if tries == 0:
                container.cgroup.kill()
            self._loop.later(0.002 * (tries + 1), lambda: self.drop_cgroup(container, tries + 1, then))
        elif then is not None:
            then()

    def _end_exec(self, container: Container, process: Process) -> None:
        """An exec is forgotten once its exit is told; its clients still get what they have not read."""
        container.execs.pop(process.exec_id, None)
        os.close(process.pidfd)
        process.pidfd = -1

    def _release(self, process: Process) -> None:
        if process.sync is not None:
            self._loop.forget(process.sync.fileno())
            process.sync.close()
            process.sync = None
        if process.streams is not None:
            process.streams.close()
            process.streams = None
        if process.pidfd >= 0:
            self._loop.forget(process.pidfd)
            os.close(process.pidfd)
            process.pidfd = -1

    def _forget(self, container: Container) -> None:
        for process in (*container.execs.values(), container.process):
            self._release(process)
        self._all.pop(container.process.id, None)
        self._records.forget(container.process.id)
        self._external.forget(container.process.id)

    def _delete(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        container = self._container(message, "delete")
        process = container.process
        if process.status == "stopped":
            self._forget(container)
            self.drop_cgroup(container, 0, lambda: answer({}))
            return
        if process.status == "running":
            raise KeeperError("delete", "exists", f"container {process.id} is running")
        if process.answer is not None or process.failed is not None:
            raise KeeperError("delete", "exists", f"container {process.id} is being started")
        process.answer = lambda *_: answer({})
        self.fail(process, KeeperError("delete", "other", "deleted"))

    def _files(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        if not message.get("id"):
            self._trees.start(message, fds, answer, -1, 0)
            return
        container = self._container(message, "files")
        if container.process.status not in ("created", "starting", "running"):
            raise KeeperError("files", "not_running", f"container {container.process.id} is not running")
        self._trees.start(message, fds, answer, container.process.pidfd, container.flags)

    def _list(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        self.takeover.read_on()  # asked after everything has been handed over
        self._requests.listing(message, fds, answer)


def _named_namespaces(message: dict[str, Any], fds: list[int]) -> dict[str, int]:
    names = message.get("given") or []
    if not isinstance(names, list) or len(names) != len(fds) or not all(name in ("network", "user") for name in names):
        raise BadConfig("names and descriptors of namespaces do not agree")
    return dict(zip(names, fds, strict=True))
