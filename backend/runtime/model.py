"""What the keeper knows of a container and its processes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from backend.runtime.cgroups import Cgroup
from backend.runtime.protocol import Exit, KeeperError, LogTarget, Stdio
from backend.runtime.pump import Streams
from backend.runtime.userns import IdMaps

Answer = Callable[..., None]


@dataclass(slots=True, eq=False)
class Process:
    """A container's first process, or an exec. *status*: preparing, created, starting, running, stopped."""

    id: str
    exec_id: str
    pid: int
    pidfd: int
    stdio: Stdio
    status: str = "preparing"
    sync: socket.socket | None = None
    streams: Streams | None = None
    answer: Answer | None = None
    started_at: int = 0
    exit: Exit | None = None
    failed: KeeperError | None = None
    outputs: dict[int, int] = field(default_factory=dict)
    stdin: int = -1
    tries: int = 0
    hidden: bool = False  # an exec whose process is born in the pid namespace only when its program is to run
    birth: int = 0  # of an adopted process, see records.State


@dataclass(slots=True, eq=False)
class Container:
    """What belongs to one container."""

    process: Process
    cgroup: Cgroup
    flags: int
    bundle: str
    log: LogTarget
    seccomp: dict[str, Any] | None
    maps: IdMaps | None = None  # of its own user namespace
    runtime: str = ""  # another program that creates and starts it; see external.py
    pipes: tuple[int, ...] = ()  # inodes of the output pipes
    traces: bool = False  # its processes may trace others in their pid namespace
    execs: dict[str, Process] = field(default_factory=dict)
