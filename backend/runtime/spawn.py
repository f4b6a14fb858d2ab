"""The fork: from a bundle to a running child. Only the keeper, a process with one thread, may use this module."""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.runtime import init, tinyinit
from backend.runtime import syscalls as sc
from backend.runtime.cgroups import Cgroup, CgroupError, layout
from backend.runtime.launch import NAMESPACES, Launch, process_plan
from backend.runtime.plan import BadConfig, Overlay, root_plan
from backend.runtime.pool import Pool, fits
from backend.runtime.protocol import KeeperError, Stdio
from backend.runtime.seccomp import Compiler
from backend.runtime.userns import IdMaps, id_maps

MAX_CONFIG = 4 << 20


@dataclass(slots=True)
class Machine:
    """What the keeper found out once, at its start."""

    capabilities: int
    nofile: tuple[int, int]
    all_capabilities: int = 0  # that the kernel knows
    compiler: Compiler = field(default_factory=Compiler)
    pid_namespace: int = -1
    pool: Pool = field(default_factory=Pool)


@dataclass(slots=True)
class Child:
    """A forked child as its parent sees it. *outputs*: stream number -> read end; *stdin*: write end or -1."""

    pid: int
    pidfd: int
    sync: socket.socket
    outputs: dict[int, int]
    stdin: int
    hidden: bool = False


def read_config(bundle: str) -> dict[str, Any]:
    """``config.json`` of a bundle. Raises :class:`BadConfig`."""
    try:
        fd = os.open(f"{bundle}/config.json", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            size = os.fstat(fd).st_size  # a buffer of the longest size would be mapped and unmapped each time
            data = os.read(fd, min(size, MAX_CONFIG))
        finally:
            os.close(fd)
        config = json.loads(data)
    except OSError as error:
        raise BadConfig(f"{bundle}/config.json: {error.strerror}") from error
    except ValueError as error:
        raise BadConfig(f"{bundle}/config.json: {error}") from error
    if not isinstance(config, dict):
        raise BadConfig(f"{bundle}/config.json is not an object")
    return config


def _open_namespace(path: str, kind: int) -> int:
    """A namespace by path, checked to be of *kind* (a path could name any file)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BadConfig(f"namespace {path}: {error.strerror}") from error
    try:
        if fcntl.ioctl(fd, sc.NS_GET_NSTYPE) == kind:
            return fd
    except OSError:
        pass
    os.close(fd)
    raise BadConfig(f"{path} is not a namespace of the right kind")


def _namespaces(launch: Launch, entries: list[dict[str, Any]], given: Mapping[str, int]) -> int:
    """Fills *launch* with the namespaces to make and to enter; returns all of their flags together."""
    everything, enter = 0, []
    for entry in entries:
        kind = NAMESPACES.get(str(entry.get("type")))
        if kind is None:
            raise BadConfig(f"namespace type {entry.get('type')!r} is not supported")
        everything |= kind
        path = entry.get("path")
        if entry["type"] in given:
            enter.append((given[entry["type"]], kind))
        elif path and kind == sc.CLONE_NEWPID:
            launch.pid_namespace = _open_namespace(str(path), kind)
        elif path:
            enter.append((_open_namespace(str(path), kind), kind))
        elif kind == sc.CLONE_NEWCGROUP:
            launch.cgroup_namespace = True
        elif kind == sc.CLONE_NEWUSER:
            raise BadConfig("a user namespace is made before its container, together with its network namespace")
        elif kind != sc.CLONE_NEWTIME:  # a time namespace needs offsets before its first process
            launch.flags |= kind
    if not everything & sc.CLONE_NEWNS:
        raise BadConfig("a container needs a mount namespace of its own")
    if bool(everything & sc.CLONE_NEWUSER) != (launch.maps is not None):
        raise BadConfig("a user namespace and ID mappings go together")
    launch.enter = tuple(enter)
    return everything & ~sc.CLONE_NEWTIME


def namespace_flags(entries: list[dict[str, Any]]) -> int:
    """The flags of all namespaces of a container, as an exec enters them. Raises :class:`BadConfig`."""
    flags = 0
    for entry in entries:
        kind = NAMESPACES.get(str(entry.get("type")))
        if kind is None:
            raise BadConfig(f"namespace type {entry.get('type')!r} is not supported")
        flags |= kind
    return flags & ~sc.CLONE_NEWTIME


def container_launch(
    machine: Machine,
    *,
    id: str,
    bundle: str,
    config: dict[str, Any],
    overlay: Overlay | None,
    stdio: Stdio,
    given: Mapping[str, int],
    group: Cgroup,
) -> tuple[Launch, int]:
    """The plan of a container's start and the flags of all its namespaces. Raises :class:`BadConfig`.

    *given*: namespaces that the caller made, by their OCI type.
    """
    linux = config.get("linux") or {}
    maps = id_maps(linux)
    process = process_plan(config.get("process") or {}, linux.get("seccomp"), machine.compiler, machine.capabilities)
    root = root_plan(config, bundle, overlay, tty=stdio.tty, maps=maps)
    launch = Launch(
        process, machine.capabilities, stdio.tty, stdio.rows, stdio.columns, root=root, nofile=machine.nofile,
        maps=maps, all_capabilities=machine.all_capabilities,
    )  # fmt: skip
    flags = _namespaces(launch, linux.get("namespaces") or [], given)
    launch.cgroup_files = group.join_files()
    launch.cgroup_layout = layout().mounts
    launch.cgroup_paths = group.by_mount()
    if flags & sc.CLONE_NEWUTS:
        launch.hostname, launch.domainname = str(config.get("hostname") or ""), str(config.get("domainname") or "")
    if (config.get("annotations") or {}).get("slipway.init") == "1":
        launch.tiny_init = tinyinit.program(os.uname().machine)
        if not launch.tiny_init:
            raise BadConfig(f"--init is not available on {os.uname().machine}")
    launch.keyring = f"_ses.{id}"
    return launch, flags


def exec_launch(
    machine: Machine,
    *,
    process: dict[str, Any],
    seccomp: dict[str, Any] | None,
    stdio: Stdio,
    group: Cgroup,
    pidfd: int,
    flags: int,
    maps: IdMaps | None,
    keyring: str,
    hidden: bool,
) -> Launch:
    """The plan of an exec into the container of *pidfd*. Raises :class:`BadConfig`."""
    plan = process_plan(process, process.get("seccomp", seccomp), machine.compiler, machine.capabilities)
    launch = Launch(plan, machine.capabilities, stdio.tty, stdio.rows, stdio.columns, nofile=machine.nofile, maps=maps,
                    all_capabilities=machine.all_capabilities)  # fmt: skip
    launch.join, launch.join_flags = pidfd, flags & ~(sc.CLONE_NEWPID | sc.CLONE_NEWUSER)
    launch.cgroup_files = group.join_files()
    launch.keyring = keyring
    if flags & sc.CLONE_NEWPID and hidden:
        launch.hidden = True
        launch.join_flags |= sc.CLONE_NEWPID
    elif flags & sc.CLONE_NEWPID:
        launch.pid_namespace = pidfd
    return launch


def _output(lasting: bool) -> tuple[int, int]:
    """A pipe: our end, the child's end. *lasting*: the child's end counts as a reader too.

    So a container that writes while neither keeper nor helper lives is not killed by SIGPIPE: it waits once the pipe
    is full, and the pipe is found again through its descriptor (see :mod:`backend.runtime.adoption`).
    """
    read, write = os.pipe()
    if lasting:
        try:
            both = os.open(f"/proc/self/fd/{write}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)
        write = both
    return read, write


def pipes(stdio: Stdio, lasting: bool) -> tuple[tuple[int, int, int], dict[int, int], int]:
    """The child's three ends, our outputs, our stdin (-1: the child reads /dev/null)."""
    opened: list[int] = []
    try:
        for _ in range(2):
            opened += _output(lasting)
        out, err = (opened[0], opened[1]), (opened[2], opened[3])
        if stdio.open_stdin:
            read, write = os.pipe()
        else:
            read, write = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
    except OSError:
        for fd in opened:
            os.close(fd)
        raise
    return (read, out[1], err[1]), {1: out[0], 2: err[0]}, write


def _fork(machine: Machine, launch: Launch) -> tuple[int, int]:
    if launch.pid_namespace < 0:
        return sc.clone3(launch.flags)
    # This only decides where children are born; the keeper itself stays where it is.
    sc.setns(launch.pid_namespace, sc.CLONE_NEWPID)
    pid = -1
    try:
        pid, pidfd = sc.clone3(launch.flags)
    finally:
        if pid != 0:  # the child must not try: it could not go back, and must not run the keeper's error handling
            sc.setns(machine.pid_namespace, sc.CLONE_NEWPID)
    return pid, pidfd


def spawn(machine: Machine, launch: Launch, stdio: Stdio) -> Child:
    """Forks the child of *launch*. It reports through ``sync`` (see :mod:`backend.runtime.init`)."""
    outputs: dict[int, int] = {}
    stdin = -1
    if not launch.tty:
        launch.stdio, outputs, stdin = pipes(stdio, lasting=launch.root is not None)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        waiting = machine.pool.hand_over(launch) if fits(launch) else None
        if waiting is not None:
            ours.close()
            pid, pidfd, ours = waiting.pid, waiting.pidfd, waiting.sync
        else:
            pid, pidfd = _fork(machine, launch)
        if pid == 0:
            gc.disable()
            init.run(launch, theirs)
    except BaseException:
        ours.close()
        for fd in (*outputs.values(), stdin):
            if fd >= 0:
                os.close(fd)
        raise
    finally:
        theirs.close()
        if not launch.tty:
            for fd in launch.stdio:
                os.close(fd)
    ours.setblocking(False)
    return Child(pid, pidfd, ours, outputs, stdin, launch.hidden)


def reap(pidfd: int) -> int:
    """Collects a dead child: exit code, or minus the signal."""
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    if result is None:
        raise OSError(errno.ECHILD, "no exit status")
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def close_opened(launch: Launch | None, kept: list[int]) -> None:
    """Namespace descriptors that the launch opened itself; those that came with the request are the caller's."""
    if launch is None:
        return
    for fd in (*(fd for fd, _ in launch.enter), launch.pid_namespace):
        if fd >= 0 and fd not in kept:
            os.close(fd)


def refusal(stage: str, error: Exception) -> KeeperError:
    """The answer to a request that *error* ended."""
    if isinstance(error, BadConfig | ValueError) and not isinstance(error, OSError):
        return KeeperError(stage, "bad_config", str(error))
    if isinstance(error, CgroupError):
        return KeeperError(stage, "cgroup", str(error), error.errno)
    assert isinstance(error, OSError)
    return KeeperError(stage, "other", f"{error.filename or stage}: {error.strerror}", error.errno)
