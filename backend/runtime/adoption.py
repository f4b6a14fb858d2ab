"""How containers outlive a keeper: descriptors held twice, records on disk.

    keeper dies                    the processes go on; their pipes stay open, because the helper has copies
    helper: find_or_start          a new keeper reads state.json: who lives (pid and birth agree) and who does not
    helper: adopt                  hands its copies over; output that came meanwhile waits in the pipes

A process that ended while no keeper was there: kernels from 6.15 on tell its status by any pidfd; else it is said to
be unknown (``known=False``, code 255), never guessed. Execs in progress are not taken over: they run on, unattended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from backend.runtime.cgroups import Cgroup
from backend.runtime.model import Container, Process
from backend.runtime.plan import BadConfig
from backend.runtime.protocol import Exit, KeeperError, LogTarget, Stdio
from backend.runtime.records import Records, State, birth
from backend.runtime.spawn import read_config


def descriptors(process: Process) -> tuple[list[str], list[int]]:
    """Names and descriptors of which the helper holds copies. They stay the process's own."""
    if process.streams is None:
        return [], []
    held = {str(n): fd for n, fd in process.streams.outputs.items()}
    if process.streams.stdin >= 0 and not process.stdio.tty:
        held["stdin"] = process.streams.stdin
    return list(held), list(held.values())


def named(names: object, fds: list[int]) -> dict[str, int]:
    """The other way round, from a request; copies, because the request's own are closed after it."""
    if not isinstance(names, list) or len(names) != len(fds) or not all(n in ("1", "2", "stdin") for n in names):
        raise KeeperError("adopt", "bad_config", "names and descriptors do not agree")
    return {name: os.dup(fd) for name, fd in zip(names, fds, strict=True)}


def restore(records: Records) -> Iterator[Container]:
    """The containers on record: alive ones without streams, dead ones with their end, known or not."""
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
        yield Container(process, Cgroup(state.cgroup), state.flags, state.bundle, log, _seccomp(state))


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


def _seccomp(state: State) -> dict[str, object] | None:
    try:
        return (read_config(state.bundle).get("linux") or {}).get("seccomp")
    except BadConfig:
        return None
