"""How containers outlive a keeper: descriptors held twice, records on disk.

    keeper dies                    the processes go on; their pipes stay open, because the helper has copies
    helper: find_or_start          a new keeper reads state.json: who lives (pid and birth agree) and who does not
    helper: adopt                  hands its copies over; output that came meanwhile waits in the pipes

When the helper dies with the keeper, its copies are gone too. Then the new keeper finds the output pipes through the
descriptors of the container's own processes, which count as readers (see ``spawn._output``), so that nobody was killed
by SIGPIPE meanwhile. What is lost in that case: the input of the program (it reads the end of file), a terminal (the
kernel hangs it up, as when a line drops), and the streams of execs.

A process that ended while no keeper was there: kernels from 6.15 on tell its status by any pidfd that was open at the
time, which is one of the copies; else it is said to be unknown (``known=False``, code 255), never guessed.
"""

from __future__ import annotations

import os
import signal
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from backend.runtime import syscalls as sc
from backend.runtime.cgroups import Cgroup
from backend.runtime.model import Container, Process
from backend.runtime.plan import BadConfig
from backend.runtime.protocol import Exit, KeeperError, LogTarget, Stdio
from backend.runtime.records import Records, State, birth
from backend.runtime.spawn import read_config
from backend.runtime.userns import id_maps

NAMES = ("1", "2", "stdin", "pidfd")


def descriptors(process: Process) -> tuple[list[str], list[int]]:
    """Names and descriptors of which the helper holds copies. They stay the process's own."""
    held = {}
    if process.streams is not None:
        held = {str(n): fd for n, fd in process.streams.outputs.items()}
        if process.streams.stdin >= 0 and not process.stdio.tty:
            held["stdin"] = process.streams.stdin
    if process.pidfd >= 0:
        held["pidfd"] = process.pidfd
    return list(held), list(held.values())


def named(names: object, fds: list[int]) -> dict[str, int]:
    """The other way round, from a request; copies, because the request's own are closed after it."""
    if not isinstance(names, list) or len(names) != len(fds) or not all(n in NAMES for n in names):
        raise KeeperError("adopt", "bad_config", "names and descriptors do not agree")
    return {name: os.dup(fd) for name, fd in zip(names, fds, strict=True)}


def restore(records: Records, find: bool) -> Iterator[tuple[Container, dict[int, int]]]:
    """The containers on record, each with the output descriptors that could be found again without the helper.

    Dead ones come with their end, known or not. *find* False: the descriptors are there already.
    """
    for state, end in records.load():
        log = LogTarget(*state.log)
        stdio = Stdio(tty=state.tty, open_stdin=False, stdin_once=state.stdin_once)
        process = Process(state.id, "", state.pid, -1, stdio, started_at=state.started_at, birth=state.birth)
        if end is None:
            end = _look(state, process)
            if end is not None:
                records.save_exit(end)
        process.exit = end
        process.status = "running" if end is None else "stopped"
        cgroup = Cgroup(state.cgroup)
        outputs = _find_outputs(state, process, cgroup) if end is None and find else {}
        config = _config(state)
        linux = config.get("linux") or {}
        container = Container(process, cgroup, state.flags, state.bundle, log, linux.get("seccomp"), id_maps(linux))
        container.traces = _may_trace(config)
        yield container, outputs


def _look(state: State, process: Process) -> Exit | None:
    """Takes hold of a process that lives; what has ended unseen is reported as unknown."""
    try:
        pidfd = os.pidfd_open(state.pid)
    except ProcessLookupError:
        pidfd = -1
    if pidfd >= 0 and birth(state.pid) == state.birth and state.started_at:
        process.pidfd = pidfd
        return None
    if pidfd >= 0:
        os.close(pidfd)
    return Exit(state.id, "", 255, 0, time.time_ns(), False, known=False)


def _find_outputs(state: State, process: Process, cgroup: Cgroup) -> dict[int, int]:
    """New read ends of the output pipes, by way of the container's processes that have them open."""
    wanted = {inode: number for number, inode in zip((1, 2), state.pipes, strict=False)}
    found: dict[int, int] = {}
    if not wanted:
        return found
    for pid in dict.fromkeys((state.pid, *cgroup.pids())):
        with suppress(OSError):
            _from_process(pid, wanted, found)
        if len(found) == len(wanted):
            break
    return found


def _from_process(pid: int, wanted: dict[int, int], found: dict[int, int]) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            number = wanted.get(_pipe_inode(pid, name))
            if number is None or number in found:
                continue
            # A copy first, checked to be that pipe: the process may have put another file there meanwhile.
            copy = sc.pidfd_getfd(pidfd, int(name))
            try:
                if wanted.get(_pipe_inode("self", str(copy))) == number:
                    found[number] = os.open(f"/proc/self/fd/{copy}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            finally:
                os.close(copy)
    finally:
        os.close(pidfd)


def _pipe_inode(pid: int | str, name: str) -> int:
    try:
        link = os.readlink(f"/proc/{pid}/fd/{name}")
    except OSError:
        return -1
    return int(link[6:-1]) if link.startswith("pipe:[") else -1


def told_by(pidfd: int, end: Exit) -> Exit:
    """The end of a process that died unseen, if the kernel still tells it by *pidfd*; *end* as it is otherwise."""
    status = sc.pidfd_exit_status(pidfd)
    if status is None or end.known:
        return end
    code = os.waitstatus_to_exitcode(status)
    number = -code if code < 0 else 0
    return Exit(end.id, end.exec_id, 128 + number if number else code, number, end.at, end.oom, known=True)


def _config(state: State) -> dict[str, Any]:
    """What its bundle says, for execs; nothing if it is gone."""
    try:
        return read_config(state.bundle)
    except BadConfig:
        return {}


def _may_trace(config: dict[str, Any]) -> bool:
    held = ((config.get("process") or {}).get("capabilities") or {}).get("bounding") or []
    return "CAP_SYS_PTRACE" in held and not (config.get("linux") or {}).get("uidMappings")


# --- becoming a newer keeper (see backend.runtime.upgrade) ----------------------------------------------------------
def frozen(process: Process) -> dict[str, Any]:
    """A running process as a request to adopt it, with what is on its way to clients and input."""
    names, fds = descriptors(process)
    streams = process.streams
    made: dict[str, Any] = {
        "id": process.id, "exec_id": process.exec_id, "pid": process.pid, "stdio": asdict(process.stdio),
        "fds": dict(zip(names, fds, strict=True)), "clients": [], "pending": "", "stdin_ending": False,
    }  # fmt: skip
    if streams is not None:
        made["clients"] = [
            {"fd": one.sock.fileno(), "stdin": one.reads_stdin, "stdout": 1 in one.streams, "stderr": 2 in one.streams,
             "framed": one.framed, "buffer": b64encode(one.buffer).decode()}
            for one in streams.clients
        ]  # fmt: skip
        made["pending"], made["stdin_ending"] = b64encode(streams.pending).decode(), streams.stdin_ending
        streams.flush_log()
    return made


def unpacked(text: str) -> bytes:
    """Bytes of a frozen state."""
    return b64decode(text)


def end_strangers(known: set[int], force: bool) -> None:
    """Children that a newer keeper would not know: those that wait, and confined ones. Raises ``busy`` for the latter
    unless *force*."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        strangers = [int(pid) for pid in file.read().split() if int(pid) not in known]
    if not force and any(_at_work(pid) for pid in strangers):
        raise KeeperError("upgrade", "busy", "an archive is being worked on")
    for pid in strangers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _at_work(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        name, _, rest = file.read().partition("(")[2].rpartition(") ")
    return name == "slipway-confined" and not rest.startswith("Z")
