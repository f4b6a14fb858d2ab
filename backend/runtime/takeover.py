"""A keeper that takes over from another: one that died (with or without the helper), or the one that it was itself.

How the parts of it are found is in :mod:`backend.runtime.adoption`; here they become containers that live again.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from backend.runtime import adoption
from backend.runtime.adoption import descriptors
from backend.runtime.loop import IN, Loop
from backend.runtime.model import Answer, Container, Process
from backend.runtime.pool import Pool
from backend.runtime.protocol import KeeperError, Stdio
from backend.runtime.protocol import field as get
from backend.runtime.records import Records, birth
from backend.runtime.requests import join_client
from backend.runtime.tracing import Tracers

if TYPE_CHECKING:
    from backend.runtime.containers import Containers


class Takeover:
    """Requests COPIES and ADOPT, and what a keeper does at its start and before it becomes a newer one."""

    def __init__(
        self, life: Containers, all: dict[str, Container], loop: Loop, *, records: Records, pool: Pool, tracers: Tracers
    ) -> None:
        self._life = life
        self._all = all
        self._loop = loop
        self._records = records
        self._pool = pool
        self._tracers = tracers
        self._held_back: list[Process] = []  # found again: not read before the helper's clients are back

    def _find(self, message: dict[str, Any], stage: str) -> Container:
        found = self._all.get(get(message, "id", "str"))
        if found is None:
            raise KeeperError(stage, "no_such", f"no such container: {message['id']}")
        return found

    def copies(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        """Gives the helper copies of a container's descriptors."""
        process = self._find(message, "copies").process
        names, copies = descriptors(process)
        answer({"pid": process.pid, "fds": names, "stdio": asdict(process.stdio)}, copies)

    def adopt(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        """Descriptors that the helper held: those that this keeper lacks are taken, and its waiting clients."""
        names, wishes = message.get("names"), message.get("clients")
        if not isinstance(names, list) or not isinstance(wishes, list) or len(fds) != len(names) + len(wishes):
            raise KeeperError("adopt", "bad_config", "names and descriptors do not agree")
        given = adoption.named(names, fds[: len(names)])
        clients = [(os.dup(fd), wish) for fd, wish in zip(fds[len(names) :], wishes, strict=True)]
        self._adopt_process(message, given, clients)
        answer({})

    def _adopt_process(
        self, message: dict[str, Any], given: dict[str, int], clients: list[tuple[int, dict[str, Any]]]
    ) -> None:
        container = self._find(message, "adopt")
        process = container.process
        if exec_id := get(message, "exec_id", "str", ""):
            process = self._adopted_exec(container, exec_id, message, given)
        self._take(container, process, given)
        for fd, wish in clients:
            join_client(process, fd, wish)
        if process.status == "stopped" and process.streams is not None:
            self._life.drain(process)
            process.streams.end_told()

    def _adopted_exec(
        self, container: Container, exec_id: str, message: dict[str, Any], given: dict[str, int]
    ) -> Process:
        """An exec that a dead keeper started. Its end is told like any other's, also if it has come already."""
        if exec_id in container.execs or "pidfd" not in given:
            for fd in given.values():
                os.close(fd)
            raise KeeperError("adopt", "exists", f"exec {exec_id} needs no adoption")
        pid, stdio = get(message, "pid", "int"), Stdio(**get(message, "stdio", "dict"))
        pidfd = given.pop("pidfd")
        process = Process(container.process.id, exec_id, pid, pidfd, stdio, "running", birth=birth(pid))
        container.execs[exec_id] = process
        self._loop.watch(pidfd, IN, lambda _: self._life.exited(process))
        return process

    def _take(self, container: Container, process: Process, given: dict[str, int]) -> None:
        outputs = {n: given.pop(str(n)) for n in (1, 2) if str(n) in given}
        stdin = outputs.get(1, -1) if process.stdio.tty else given.pop("stdin", -1)
        if process.streams is None and outputs:
            self._life.make_streams(container, process, outputs, stdin, resumes=True)
        else:
            for fd in outputs.values():
                os.close(fd)
            if process.streams is not None and process.streams.stdin < 0 <= stdin:
                process.streams.take_stdin(stdin)
        pidfd = given.pop("pidfd", -1)
        if pidfd >= 0:
            if process.exit is not None and not process.exit.known:
                process.exit = adoption.told_by(pidfd, process.exit)
                self._records.save_exit(process.exit)
            os.close(pidfd)

    def freeze(self, force: bool) -> list[dict[str, Any]]:
        """What only memory knows of the running processes, to become a newer keeper. Raises ``busy``."""
        processes = [p for c in self._all.values() for p in (c.process, *c.execs.values())]
        for process in processes if force else ():
            if process.status == "created":  # it was for a helper that is gone
                self._life.fail(process, KeeperError("upgrade", "other", "the keeper was upgraded"))
        if any(p.status in ("preparing", "created", "starting") for p in processes):
            raise KeeperError("upgrade", "busy", "a container or an exec is being started")
        live = {p.pid for p in processes if p.status == "running"}
        self._pool.close()
        adoption.end_strangers(live, force)
        return [adoption.frozen(process) for process in processes if process.status == "running"]

    def go_on(self) -> None:
        """The upgrade has not come to pass."""
        self._loop.later(0, self._pool.fill)

    def thaw(self, frozen: list[dict[str, Any]]) -> None:
        """Takes over what :meth:`freeze` gave before this process became a newer keeper."""
        for one in frozen:
            clients = [(client["fd"], client) for client in one["clients"]]
            self._adopt_process(one, one["fds"], clients)
            process = self._all[one["id"]].execs[one["exec_id"]] if one["exec_id"] else self._all[one["id"]].process
            if process.streams is not None:
                process.streams.feed(adoption.unpacked(one["pending"]), ending=one["stdin_ending"])

    def restore(self, find: bool) -> None:
        """What a keeper before this one left running or unsaid (see :mod:`backend.runtime.adoption`)."""
        for container, outputs in adoption.restore(self._records, find):
            process = container.process
            self._all[process.id] = container
            if container.traces and process.status == "running":
                self._tracers.note(process.pid)
            if outputs:
                self._life.make_streams(container, process, outputs, -1, resumes=True)
                if process.streams is not None:
                    process.streams.hold(True)
                self._held_back.append(process)
            if process.status == "stopped":
                self._life.drop_cgroup(container, 0)
            else:
                self._loop.watch(process.pidfd, IN, lambda _, p=process: self._life.exited(p))  # type: ignore[misc]

    def read_on(self) -> None:
        """The helper has handed over what it had: output that was found again is read."""
        for process in self._held_back:
            if process.streams is not None:
                process.streams.hold(False)
        self._held_back.clear()
