"""Runtimes of others (runc, crun) on the bundle that the built-in one would run.

    keeper                                launcher (child)                       runtime
      | -- clone3 ------------------------> | own mount namespace, overlay,        |
      |                                     | user and groups looked up, bundle    |
      |                                     | written out -- execve -------------> | create
      | <---------------------------------------------------- exit: created, pid in a file
      |  the container's first process is ours now (child subreaper): pidfd, streams, log, exit as always
      | -- clone3, execve ---------------------------------------------------> start

Only create and start are the other program's. The rest (signals, exec, attach, pause, limits, removal) works on
kernel objects, which are the same whoever made them. Its state lies in a directory of its own for each container, so
that forgetting a container is removing that directory.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from backend.runtime import init, rootfs, users
from backend.runtime import syscalls as sc
from backend.runtime.caps import SYS_RESOURCE, mask
from backend.runtime.cgroups import layout
from backend.runtime.launch import DEFAULT_PATH
from backend.runtime.loop import IN, Loop
from backend.runtime.plan import BadConfig, Overlay, RootPlan, root_plan
from backend.runtime.protocol import KeeperError, Stdio
from backend.runtime.spawn import pipes

PROGRAMS = ("runc", "crun")
_UNIFIED = "/sys/fs/cgroup/unified"
# Clients choose their exit code by these words, and not every runtime writes them.
_WORDS = {"not_found": "executable file not found in $PATH", "not_permitted": "permission denied"}
Failed = Callable[[KeeperError], None]


def program(name: str) -> str:
    """Where the runtime *name* is. Raises :class:`KeeperError` with what to install."""
    places = [f"{directory}/{name}" for directory in DEFAULT_PATH.split(":")] if name in PROGRAMS else []
    found = next((path for path in places if os.access(path, os.X_OK)), None)
    if found is None:
        raise KeeperError("create", "not_installed", f"the runtime {name} is not installed on this machine: install "
                          f"the package {name}, or leave --runtime out")  # fmt: skip
    return found


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be created: as the built-in runtime gets it. *capabilities*: what this machine grants at all."""

    id: str
    runtime: str
    bundle: str
    config: dict[str, Any]
    overlay: Overlay | None
    stdio: Stdio
    netns: int
    capabilities: int


@dataclass(slots=True)
class Made:
    """The ends of a container's streams while it is being created."""

    outputs: dict[int, int]
    stdin: int


@dataclass(frozen=True, slots=True)
class Born:
    """A created container's first process, and its terminal's master (-1: none)."""

    pid: int
    pidfd: int
    terminal: int


class External:
    """Runs other runtimes for the keeper. Every method returns at once; what comes of it is called back."""

    def __init__(self, loop: Loop, exec_root: str, known: Callable[[], set[int]]) -> None:
        self._loop = loop
        self._root = f"{exec_root}/runtimes"
        self._known = known  # pids of the keeper's children that somebody waits for
        self._creating = 0

    def directory(self, id: str) -> str:
        """What belongs to one container. Short, because a socket's path may have 107 bytes."""
        return f"{self._root}/{id[:16]}"

    def create(self, order: Order, ready: Callable[[Born], None], failed: Failed) -> Made:
        """Begins a creation; *ready* or *failed* is called when it has ended."""
        path, place = program(order.runtime), self.directory(order.id)
        plan = root_plan(order.config, order.bundle, order.overlay, tty=order.stdio.tty)
        _remove_tree(place)
        os.makedirs(f"{place}/state", mode=0o700)
        listener = _listener(f"{place}/console") if order.stdio.tty else None
        ends, outputs, stdin = ((-1, -1, -1), {}, -1) if order.stdio.tty else pipes(order.stdio, lasting=True)
        words = [path, "--root", f"{place}/state", "--log", f"{place}/log", "--log-format", "json", "create",
                 "--bundle", place, "--pid-file", f"{place}/pid",
                 *(["--console-socket", f"{place}/console"] if listener else []), order.id]  # fmt: skip
        self._expect(1)
        try:
            pid, pidfd = sc.clone3(0)
            if pid == 0:
                _launch(order, plan, place, ends, words)
        except OSError:
            self._expect(-1)
            for fd in (*outputs.values(), stdin):
                _close(fd)
            raise
        finally:
            for fd in ends:
                _close(fd)

        def ended(code: int) -> None:
            born = _born(place, listener) if code == 0 else None
            self._expect(-1)
            if born is None:
                failed(_complaint(order.runtime, place, "create"))
            else:
                ready(born)

        self._when_ended(pidfd, ended)
        return Made(outputs, stdin)

    def start(self, id: str, runtime: str, started: Callable[[], None], failed: Failed) -> None:
        """Lets a created container run its program."""
        path, place = program(runtime), self.directory(id)
        words = [path, "--root", f"{place}/state", "--log", f"{place}/log", "--log-format", "json", "start", id]
        pid, pidfd = sc.clone3(0)
        if pid == 0:
            _execute(words, place, -1)

        def ended(code: int) -> None:
            if code == 0:
                started()
            else:
                failed(_complaint(runtime, place, "start"))

        self._when_ended(pidfd, ended)

    def forget(self, id: str) -> None:
        """Removes what a runtime left of a container; nothing if it was not one of its own."""
        _remove_tree(self.directory(id))

    # --- children ---------------------------------------------------------------------------------------------------
    def _when_ended(self, pidfd: int, call: Callable[[int], None]) -> None:
        def ready(_: int) -> None:
            self._loop.forget(pidfd)
            seen = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            os.close(pidfd)
            assert seen is not None
            call(seen.si_status if seen.si_code == os.CLD_EXITED else 128 + seen.si_status)

        self._loop.watch(pidfd, IN, ready)

    def _expect(self, change: int) -> None:
        """While a runtime creates, what it leaves behind becomes our child; at other times orphans are init's."""
        self._creating += change
        if self._creating == max(change, 0):
            sc.prctl(sc.PR_SET_CHILD_SUBREAPER, int(self._creating > 0))
        if change < 0 and not self._creating:
            self._loop.later(0, self._take_strays)

    def _take_strays(self) -> None:
        """Orphans of somebody else that came to us in that time are collected when they end."""
        with open("/proc/thread-self/children", encoding="ascii") as file:
            strays = {int(word) for word in file.read().split()} - self._known()
        for pid in strays:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                    if file.read().startswith("slipway"):
                        continue  # a worker of ours, which has somebody to wait for it
                self._when_ended(os.pidfd_open(pid), lambda _: None)


def _remove_tree(path: str) -> None:
    """A directory of ours; without shutil, which would cost the keeper a megabyte."""
    for top, directories, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(f"{top}/{name}")
        for name in directories:
            (os.unlink if os.path.islink(f"{top}/{name}") else os.rmdir)(f"{top}/{name}")
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _listener(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    made.bind(path)
    made.listen(1)
    made.setblocking(False)
    return made


def _born(place: str, listener: socket.socket | None) -> Born | None:
    """The process that a successful create left. None if it has already gone wrong."""
    try:
        with open(f"{place}/pid", encoding="ascii") as file:
            pid = int(file.read())
        terminal = _terminal(listener) if listener is not None else -1
        return Born(pid, os.pidfd_open(pid), terminal)
    except (OSError, ValueError):
        return None
    finally:
        if listener is not None:
            listener.close()


def _terminal(listener: socket.socket) -> int:
    """The master that the runtime has sent: it waits in the socket, since the runtime has ended."""
    sock, _ = listener.accept()
    with sock:
        _, fds = sc.recv_fds(sock, 4096)
    for extra in fds[1:]:
        os.close(extra)
    if not fds:
        raise OSError("the runtime sent no terminal")
    os.set_inheritable(fds[0], False)
    return fds[0]


def _complaint(runtime: str, place: str, stage: str) -> KeeperError:
    """What the launcher or the runtime said last, in the kinds of the keeper's contract."""
    try:
        with open(f"{place}/refused", encoding="utf-8") as file:
            said = json.load(file)
        return KeeperError(stage, said["reason"], said["message"], said["errno"])
    except (OSError, ValueError, KeyError):
        text = _last_message(f"{place}/log") or "it said nothing"
    if "executable file" in text or ("no such file or directory" in text.lower() and "exec" in text):
        reason = "not_found"
    elif "permission denied" in text.lower() or "is a directory" in text:
        reason = "not_permitted"
    else:
        reason = "bad_cwd" if "chdir" in text else "other"
    words = _WORDS.get(reason, "")
    more = f": {words}" if words not in text else ""
    return KeeperError(stage, reason, f"{runtime} {stage} failed: {text}{more}")


def _last_message(path: str) -> str:
    text = ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    said = json.loads(line)
                    if said.get("level") in ("error", "fatal"):
                        text = str(said.get("msg"))
    except OSError:
        return ""
    return text.strip()


# --- in the child ---------------------------------------------------------------------------------------------------
def _launch(order: Order, plan: RootPlan, place: str, ends: tuple[int, int, int], words: list[str]) -> NoReturn:
    """Makes the root, writes the bundle as the runtime takes it, becomes the runtime."""
    gc.disable()
    try:
        for number, fd in enumerate(ends):
            if fd >= 0:
                os.dup2(fd, number)
            else:
                os.dup2(os.open("/dev/null", os.O_RDWR), number)
        _leave(order.netns)
        root = rootfs.mount_root(plan)
        _write_bundle(order, plan, place, root)
    except BaseException as error:
        _refuse(place, error)
    _become(words, place)


def _execute(words: list[str], place: str, netns: int) -> NoReturn:
    gc.disable()
    try:
        for number in (0, 1, 2):
            os.dup2(os.open("/dev/null", os.O_RDWR), number)
        _leave(netns)
    except BaseException as error:
        _refuse(place, error)
    _become(words, place)


def _leave(netns: int) -> None:
    """Out of the keeper, into a mount namespace where crun finds no second cgroup tree (it refuses such machines)."""
    init.leave_keeper({0, 1, 2, *([netns] if netns >= 0 else [])})
    sc.set_name("slipway:runtime")
    sc.unshare(sc.CLONE_NEWNS)
    sc.mount(None, "/", None, sc.MS_REC | sc.MS_SLAVE)
    if not layout().v2 and os.path.ismount(_UNIFIED):
        sc.umount2(_UNIFIED, sc.MNT_DETACH)


def _become(words: list[str], place: str) -> NoReturn:
    try:
        os.execve(words[0], words, {"PATH": DEFAULT_PATH})  # noqa: S606
    except OSError as error:
        _refuse(place, error)


def _refuse(place: str, error: BaseException) -> NoReturn:
    try:
        with open(f"{place}/refused", "w", encoding="utf-8") as file:
            json.dump(init.report(error), file)
    finally:
        os._exit(1)


def _write_bundle(order: Order, plan: RootPlan, place: str, root: int) -> None:
    """The configuration without what only the built-in runtime understands."""
    config = {**order.config, "ociVersion": "1.0.2"}  # older runtimes refuse what is newer than they are
    linux = dict(config.get("linux") or {})
    config["root"] = {"path": plan.path, "readonly": plan.read_only}
    config["process"] = _process(dict(config.get("process") or {}), root, order.capabilities)
    linux["cgroupsPath"] = "/" + str(linux.get("cgroupsPath") or f"slipway/{order.id}").strip("/")
    if order.netns >= 0:
        linux["namespaces"] = _with_netns(linux.get("namespaces") or [], place, order.netns)
    config["linux"] = linux
    # A runtime takes the descriptor of a terminal only for a process that says it has one, and the other way round.
    config["process"]["terminal"] = order.stdio.tty
    fd = os.open(f"{place}/config.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps(config).encode())
    finally:
        os.close(fd)


def _with_netns(entries: list[dict[str, Any]], place: str, netns: int) -> list[dict[str, Any]]:
    """The network namespace has no name; it gets one that only this mount namespace sees."""
    path = f"{place}/netns"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    sc.mount(f"/proc/self/fd/{netns}", path, None, sc.MS_BIND)
    os.close(netns)
    return [{**entry, "path": path} if entry.get("type") == "network" else entry for entry in entries]


def _process(process: dict[str, Any], root: int, capabilities: int) -> dict[str, Any]:
    user = dict(process.get("user") or {})
    name = user.pop("username", None)
    extra = [users.group_id(root, one) for one in user.pop("additionalGroups", None) or []]
    if name is not None:
        found = users.resolve(root, str(name))
        groups = dict.fromkeys((found.gid, *found.groups, *extra))
        user |= {"uid": found.uid, "gid": found.gid, "additionalGids": list(groups)}
        if not any(entry.startswith("HOME=") for entry in process.get("env") or []):
            process["env"] = [*(process.get("env") or []), f"HOME={found.home}"]
    elif extra:
        user["additionalGids"] = [*(user.get("additionalGids") or []), *extra]
    process["user"] = user
    sets = process.get("capabilities") or {}
    process["capabilities"] = {
        kind: [one for one in names if mask([one]) & capabilities] for kind, names in sets.items()
    }
    if not capabilities & SYS_RESOURCE:
        process["rlimits"] = [_capped(entry) for entry in process.get("rlimits") or []]
        if int(process.get("oomScoreAdj") or 0) <= 0:
            process.pop("oomScoreAdj", None)
    return process


def _capped(entry: dict[str, Any]) -> dict[str, Any]:
    """A limit that this process may set: without the capability none is raised."""
    kind = getattr(resource, str(entry.get("type")), None)
    if kind is None:
        raise BadConfig(f"rlimit {entry.get('type')!r} is not known")
    top = resource.getrlimit(kind)[1]
    top = (1 << 64) - 1 if top < 0 else top
    hard = min(int(entry.get("hard", 0)), top)
    return {**entry, "hard": hard, "soft": min(int(entry.get("soft", 0)), hard)}


