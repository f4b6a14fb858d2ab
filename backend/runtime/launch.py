"""What a child needs to know, computed by the keeper before the fork: plain values, checked, nothing left to look up.

``process`` of the OCI configuration becomes a :class:`ProcessPlan`, the rest of it a :class:`Launch`.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, field
from typing import Any

from backend.runtime import syscalls as sc
from backend.runtime.caps import CapabilitySets
from backend.runtime.plan import BadConfig, RootPlan
from backend.runtime.seccomp import BadProfile, Compiler
from backend.runtime.userns import IdMaps

NAMESPACES = {
    "mount": sc.CLONE_NEWNS, "network": sc.CLONE_NEWNET, "pid": sc.CLONE_NEWPID, "ipc": sc.CLONE_NEWIPC,
    "uts": sc.CLONE_NEWUTS, "cgroup": sc.CLONE_NEWCGROUP, "time": sc.CLONE_NEWTIME,
    "user": sc.CLONE_NEWUSER,
}  # fmt: skip
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """A program and what it may do."""

    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    username: str | None  # resolved inside the rootfs; None: the numbers below
    uid: int
    gid: int
    groups: tuple[int, ...]
    extra_groups: tuple[str, ...]  # names or numbers, resolved inside the rootfs (docker's --group-add)
    umask: int
    capabilities: CapabilitySets
    no_new_privileges: bool
    seccomp: bytes
    apparmor: str
    rlimits: tuple[tuple[int, int, int], ...]
    oom_score_adj: int | None


@dataclass(slots=True)
class Launch:
    """One start: a container (``root`` set) or an exec in one (``join`` set)."""

    process: ProcessPlan
    host_capabilities: int
    tty: bool
    rows: int
    columns: int
    stdio: tuple[int, int, int] = (-1, -1, -1)  # descriptors of the child's end; unused with a terminal
    root: RootPlan | None = None
    flags: int = 0  # CLONE_NEW* for clone3
    enter: tuple[tuple[int, int], ...] = ()  # (descriptor, CLONE_NEW*) to setns into
    pid_namespace: int = -1  # descriptor; the keeper enters it around the clone
    join: int = -1  # pidfd of the container's init, for an exec
    join_flags: int = 0
    hidden: bool = False  # an exec that enters the pid namespace only with the program (see backend.runtime.tracing)
    cgroup_files: tuple[str, ...] = ()  # write "0" to join
    cgroup_namespace: bool = False
    cgroup_layout: tuple[tuple[str, str], ...] = ()  # what a mount of type cgroup shows
    cgroup_paths: dict[str, str] = field(default_factory=dict)
    hostname: str = ""
    domainname: str = ""
    tiny_init: bytes = b""  # the program that stays as pid 1, if one is wanted
    keyring: str = ""
    maps: IdMaps | None = None  # of its user namespace; None: it has the host's
    userns: int = -1  # descriptor of that namespace, or the pidfd of a process in it; entered last
    all_capabilities: int = 0  # what a new user namespace begins with
    nofile: tuple[int, int] = (0, 0)  # limits that the keeper itself was started with


_RLIMITS = {name: getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
_RLIMITS.setdefault("RLIMIT_LOCKS", 10)


def _strings(value: object, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and "\0" not in v for v in value):
        raise BadConfig(f"{what} must be a list of strings without NUL")
    return tuple(value)


def _limit(value: object) -> int:
    number = int(str(value))
    return resource.RLIM_INFINITY if number < 0 or number >= (1 << 63) else number


def _rlimits(entries: list[dict[str, Any]]) -> tuple[tuple[int, int, int], ...]:
    result = []
    for entry in entries:
        kind = _RLIMITS.get(str(entry.get("type")))
        if kind is None:
            raise BadConfig(f"rlimit {entry.get('type')!r} is not known")
        result.append((kind, _limit(entry.get("soft", 0)), _limit(entry.get("hard", 0))))
    return tuple(result)


def _number(value: object, what: str, limit: int = 0xFFFFFFFE) -> int:
    # (uid_t)-1 means "unchanged" to the kernel, and 2**32 would wrap to root (CVE-2024-40635).
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
        raise BadConfig(f"{what} {value!r} is out of range")
    return value


def process_plan(process: dict[str, Any], seccomp: dict[str, Any] | None, compiler: Compiler, host: int) -> ProcessPlan:
    """Checks OCI ``process``. Raises :class:`BadConfig`."""
    args = _strings(process.get("args") or [], "process.args")
    if not args or not args[0]:
        raise BadConfig("no command specified")
    user = process.get("user") or {}
    env = []
    for entry in _strings(process.get("env") or [], "process.env"):
        key, equals, value = entry.partition("=")
        if key and equals:
            env.append((key, value))
    cwd = process.get("cwd") or "/"
    if not isinstance(cwd, str) or not cwd.startswith("/") or "\0" in cwd:
        raise BadConfig(f"working directory {cwd!r} is not an absolute path")
    try:
        program = compiler.compile(seccomp)
        capabilities = CapabilitySets.from_spec(process.get("capabilities"), host)
    except (BadProfile, ValueError) as error:
        raise BadConfig(str(error)) from error
    adjust = process.get("oomScoreAdj")
    username = user.get("username")
    return ProcessPlan(
        args, tuple(env), cwd, str(username) if username is not None else None,
        _number(user.get("uid", 0), "uid"), _number(user.get("gid", 0), "gid"),
        tuple(_number(g, "gid") for g in user.get("additionalGids") or []),
        _strings(user.get("additionalGroups") or [], "process.user.additionalGroups"),
        _number(user.get("umask", 0o022), "umask", 0o7777), capabilities, bool(process.get("noNewPrivileges")), program,
        str(process.get("apparmorProfile") or ""), _rlimits(process.get("rlimits") or []),
        int(adjust) if adjust is not None else None,
    )  # fmt: skip
