"""What a child does between the fork and execve: Python code that runs as the container's first process (or an exec's).

    keeper                               child
      | -- clone3 (namespaces) ----------> |
      | -- JOIN (a container's) ---------> |  closes all but its few descriptors, joins cgroups and namespaces,
      |                                    |  mounts, pivots, finds user, directory and program
      | <------- READY (+ terminal) ------ |
      |   or    ERROR {reason, ...}        |
      | -- GO ---------------------------> |
      |                                    |  limits, identity, capabilities, seccomp, execve
      | <------- end of file ------------- |  (close-on-exec: the program runs)
      |   or    ERROR {reason, ...}        |

Rules: the process is not dumpable before it enters anything of a container (inherited from the keeper), so nothing in
there can trace it or open its descriptors; it imports nothing (the import system is switched off first: a module
would be looked up in the container's files); it follows no untrusted path but by ``openat2``; it execs or exits.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys
import termios
from typing import NoReturn

from backend.runtime import rootfs, tinyinit, userns, users
from backend.runtime import syscalls as sc
from backend.runtime.caps import SYS_ADMIN
from backend.runtime.launch import DEFAULT_PATH, Launch, ProcessPlan
from backend.runtime.plan import BadConfig, BindMount, FsMount

READY, GO, JOIN, INSIDE = b"R", b"G", b"J", b"I"
NEVER_RAN = 125  # the keeper went before it gave the word: what a shell user knows as "the engine could not run it"
IGNORED = (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT)  # by the keeper; all others have their default there


class Refused(Exception):
    """The start cannot go on; *reason* is one of the reasons of the keeper's contract."""

    def __init__(self, reason: str, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.number = number


def run(launch: Launch, sync: socket.socket, *, pooled: bool = False) -> NoReturn:
    """The child's whole life. Never returns: execve, or a typed error through *sync* and exit."""
    try:
        _isolate(launch, sync, pooled)
        _main(launch, sync)
    except BaseException as error:
        try:
            sync.send(json.dumps(report(error)).encode())
        except OSError:
            pass  # nobody is left to tell
    os._exit(127)


def report(error: BaseException) -> dict[str, object]:
    """An error before the program ran, as the keeper is told of it."""
    number = error.errno if isinstance(error, OSError) else getattr(error, "errno", None)
    if isinstance(error, Refused):
        return {"reason": error.reason, "errno": error.number, "message": str(error)}
    if isinstance(error, users.NoSuchUser):
        return {"reason": "no_user", "errno": None, "message": str(error)}
    if isinstance(error, rootfs.MountFailed):
        return {"reason": "mount", "errno": number, "message": str(error)}
    if isinstance(error, OSError):
        return {"reason": "other", "errno": number, "message": f"{error.filename or 'start'}: {error.strerror}"}
    return {"reason": "other", "errno": None, "message": f"{type(error).__name__}: {error}"}


def _isolate(launch: Launch, sync: socket.socket, pooled: bool) -> None:
    """Leaves the child with its own streams, the socket, and what it has yet to enter."""
    if not launch.tty:
        for number, fd in enumerate(launch.stdio):
            os.dup2(fd, number)  # dup2 clears close-on-exec
    keep = {0, 1, 2, sync.fileno(), launch.join, *(fd for fd, _ in launch.enter)}
    keep.discard(-1)
    if pooled:
        sc.close_all_but(keep)
        sc.unshare(launch.flags)
    else:
        leave_keeper(keep)
    sc.set_name("slipway:init")


def rehearse() -> None:
    """Calls what every start calls, to no effect: the pages that this writes to (reference counts) become ours."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in ("/proc", "/dev"):
            os.close(rootfs.make_directory(root, path))
        os.close(rootfs.null_device())
    finally:
        os.close(root)


def leave_keeper(keep: set[int]) -> None:
    """Cuts a child off from the keeper it was forked from: descriptors, imports, signals, umask."""
    sc.close_all_but(keep)
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    for number in IGNORED:
        # An ignored signal stays ignored over execve and no shell can undo it.
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)


def _main(launch: Launch, sync: socket.socket) -> NoReturn:
    process = launch.process
    _join_cgroups(launch, sync)
    _set_oom_score(process)
    apparmor = os.open("/proc/self/attr/exec", os.O_WRONLY | os.O_CLOEXEC) if process.apparmor else -1
    root = _build_container(launch) if launch.root is not None else _enter_container(launch)
    if launch.maps is None:
        _own_keyring(launch)
    identity = _identity(process, root)
    owner = _on_host(identity, launch.maps)
    fds = _terminal(launch, root, owner) if launch.tty else []
    if launch.root is not None:
        _finish_container(launch, root)
    else:
        os.close(root)
    _chdir(process.cwd)
    environment = dict(process.env)
    environment.setdefault("HOME", identity.home)
    program = find_program(process.args[0], environment.get("PATH", DEFAULT_PATH))
    sc.send_fds(sync, READY, fds)
    for fd in fds:
        os.close(fd)
    if sync.recv(1) != GO:
        os._exit(NEVER_RAN)  # the keeper has changed its mind, or is gone
    if not launch.tty:
        _own_stdio(owner)
    if launch.hidden:
        _become(launch, identity, apparmor)
        _execute_inside(launch, sync, program, environment)
    holder = tinyinit.sealed(launch.tiny_init) if launch.tiny_init else -1
    if holder < 0:
        _session(launch.tty)
    _become(launch, identity, apparmor)
    if holder >= 0:
        _execute_holder(holder, launch, sync, program, environment)
    _execute(program, process.args, environment)


def _own_keyring(launch: Launch) -> None:
    if not launch.keyring:
        return
    try:
        sc.join_session_keyring(launch.keyring)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EDQUOT, errno.EACCES):
            raise


def _on_host(identity: users.Identity, maps: userns.IdMaps | None) -> int:
    """The user's ID outside. Raises :class:`Refused` if one of the identity's IDs is none of the container's."""
    if maps is None:
        return identity.uid
    try:
        for gid in (identity.gid, *identity.groups):
            maps.gid(gid)
        return maps.uid(identity.uid)
    except BadConfig as error:
        raise Refused("no_user", str(error)) from error


# --- cgroup, oom ----------------------------------------------------------------------------------------------------
def _join_cgroups(launch: Launch, sync: socket.socket) -> None:
    if launch.root is not None and sync.recv(1) != JOIN:
        os._exit(0)  # its cgroup could not be made, or the keeper is gone
    for path in launch.cgroup_files:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"0")
            finally:
                os.close(fd)
        except OSError as error:
            raise Refused("cgroup", f"join cgroup {path}: {error.strerror}", error.errno) from error
    if launch.cgroup_namespace:
        sc.unshare(sc.CLONE_NEWCGROUP)  # after joining: the namespace's root is the cgroup of this moment


def _set_oom_score(process: ProcessPlan) -> None:
    if process.oom_score_adj is None:
        return
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(process.oom_score_adj).encode())
    except PermissionError:
        pass  # lowering it takes CAP_SYS_RESOURCE, which nested machines withhold
    finally:
        os.close(fd)


# --- the container's file system -----------------------------------------------------------------------------------
def _build_container(launch: Launch) -> int:
    assert launch.root is not None
    for fd, kind in launch.enter:
        if kind == sc.CLONE_NEWUSER:
            launch.userns = fd  # entered last: until then the host's root is at work
            continue
        sc.setns(fd, kind)
        os.close(fd)
    if launch.flags & sc.CLONE_NEWNET:
        sc.loopback_up()
    if launch.maps is not None:
        userns.act_as_root_of(launch.maps)
    root = rootfs.mount_root(launch.root, launch.userns)
    path = os.readlink(rootfs.by_fd(root))
    for op in launch.root.mounts:
        try:
            if isinstance(op, FsMount):
                rootfs.fresh_mount(root, path, op)
                if launch.maps is not None and op.kind in ("devpts", "mqueue"):
                    rootfs.give_away(root, op.target, launch.maps.uid(0), launch.maps.gid(0))
            elif isinstance(op, BindMount):
                rootfs.bind_mount(root, path, op, launch.userns)
            else:
                rootfs.cgroup_mount(
                    root, op, launch.cgroup_layout, own_namespace=launch.cgroup_namespace, paths=launch.cgroup_paths
                )
        except OSError as error:
            text = error.strerror or str(error)
            raise Refused("mount", f"{op.describe()}: {error.filename or ''}: {text}", error.errno) from error
    for device in launch.root.devices:
        rootfs.make_device(root, device)
    if launch.root.devices:
        rootfs.make_dev_links(root)
    try:
        os.close(rootfs.make_directory(root, launch.process.cwd))
    except OSError as error:
        raise Refused("bad_cwd", f"mkdir {launch.process.cwd}: {error.strerror}", error.errno) from error
    return root


def _finish_container(launch: Launch, root: int) -> None:
    assert launch.root is not None
    if launch.hostname:
        socket.sethostname(launch.hostname)
    if launch.domainname:
        sc.setdomainname(launch.domainname)
    try:
        rootfs.write_sysctls(root, launch.root.sysctls)
        rootfs.readonly_paths(root, launch.root.readonly_paths)
        rootfs.mask_paths(root, launch.root.masked)
        rootfs.pivot(root)
        os.close(root)
        if launch.root.read_only:
            rootfs.read_only_root()
    except OSError as error:
        raise rootfs.MountFailed(error.filename or "root file system", error) from error


def _enter_container(launch: Launch) -> int:
    sc.setns(launch.join, launch.join_flags)
    if launch.maps is None:
        os.close(launch.join)
    else:
        launch.userns = launch.join
        userns.act_as_root_of(launch.maps)
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _chdir(path: str) -> None:
    """Enters the working directory and makes sure that it lies inside the root (CVE-2024-21626)."""
    try:
        os.chdir(path)
        inside = os.getcwd().startswith("/")
    except OSError as error:
        message = f'chdir to cwd ("{path}") set in config.json failed: {(error.strerror or "").lower()}'
        raise Refused("bad_cwd", message, error.errno) from error
    if not inside:
        raise Refused("bad_cwd", f"working directory {path} lies outside of the container")


# --- terminal and stdio ---------------------------------------------------------------------------------------------
def _terminal(launch: Launch, root: int, uid: int) -> list[int]:
    """Makes the terminal inside the container; returns its master, to be handed to the keeper."""
    master = rootfs.open_terminal(root)
    slave = sc.pty_peer(master)
    if launch.rows or launch.columns:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", launch.rows, launch.columns, 0, 0))
    os.fchown(slave, uid, -1)
    os.fchmod(slave, 0o620)
    if launch.root is not None and launch.root.console:
        rootfs.bind_console(root, slave)
    for number in (0, 1, 2):
        os.dup2(slave, number)
    os.close(slave)
    return [master]


def _own_stdio(uid: int) -> None:
    """The user may open /dev/stdout again, which for a pipe needs its ownership; /dev/null is left alone."""
    for number in (0, 1, 2):
        seen = os.fstat(number)
        if stat.S_ISFIFO(seen.st_mode) and seen.st_uid != uid:
            os.fchown(number, uid, -1)


def _session(tty: bool) -> None:
    os.setsid()
    if tty:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


# --- identity and privileges ----------------------------------------------------------------------------------------
def _identity(process: ProcessPlan, root: int) -> users.Identity:
    if process.username is not None:
        found = users.resolve(root, process.username)
        # The own group counts among the others too: leaving it must not lift a ban on it (CVE-2022-36109).
        found = users.Identity(found.uid, found.gid, (found.gid, *found.groups), found.home)
    else:
        home = next((u.home for u in users.all_users(root) if u.uid == process.uid), "") or "/"
        found = users.Identity(process.uid, process.gid, (), home)
    extra = tuple(users.group_id(root, name) for name in process.extra_groups)
    groups = tuple(dict.fromkeys((*found.groups, *process.groups, *extra)))
    return users.Identity(found.uid, found.gid, groups, found.home)


def _limits(launch: Launch) -> None:
    given = {kind for kind, _, _ in launch.process.rlimits}
    wanted = list(launch.process.rlimits)
    if resource.RLIMIT_NOFILE not in given and launch.nofile != (0, 0):
        wanted.append((resource.RLIMIT_NOFILE, *launch.nofile))
    for kind, soft, hard in wanted:
        try:
            resource.setrlimit(kind, (soft, hard))
        except (ValueError, OSError):
            # Raising a hard limit takes CAP_SYS_RESOURCE: take what may be had and go on.
            top = resource.getrlimit(kind)[1]
            capped = min(hard & (1 << 64) - 1, top & (1 << 64) - 1)
            low = min(soft & (1 << 64) - 1, capped)
            resource.setrlimit(kind, (-1 if low >= 1 << 63 else low, -1 if capped >= 1 << 63 else capped))


def _become(launch: Launch, identity: users.Identity, apparmor: int) -> None:
    """Limits, identity, capabilities, seccomp: from here on the process can do only what the program may."""
    process = launch.process
    caps = process.capabilities
    if apparmor >= 0:
        try:
            os.write(apparmor, f"exec {process.apparmor}".encode())
        except OSError as error:
            raise Refused(
                "other", f"apparmor profile {process.apparmor!r} cannot be used: {error.strerror}", error.errno
            ) from error
        os.close(apparmor)
    os.umask(process.umask)
    _limits(launch)
    if launch.maps is not None:
        userns.enter(launch.userns, sc.CLONE_NEWUSER)
        if launch.root is not None:
            userns.own_mounts()
    caps.drop_bounding(launch.host_capabilities if launch.maps is None else launch.all_capabilities)
    sc.prctl(sc.PR_SET_KEEPCAPS, 1)
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    if launch.maps is not None:
        _own_keyring(launch)
    # Without no_new_privs the filter may only be installed with CAP_SYS_ADMIN, which is given up right after.
    extra = SYS_ADMIN if process.seccomp and not process.no_new_privileges else 0
    caps.apply(extra)
    caps.raise_ambient()
    if process.no_new_privileges:
        sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
    if process.seccomp:
        sc.seccomp_load(process.seccomp)
    if extra:
        caps.apply()


# --- the program ----------------------------------------------------------------------------------------------------
def find_program(name: str, path: str) -> str:
    """The file that *name* means, looked up in *path* if it has no slash. Raises :class:`Refused`."""
    if "/" in name:
        problem = _problem(name)
        if problem is None:
            return name
        if problem == errno.ENOENT:
            raise Refused("not_found", f'exec: "{name}": stat {name}: no such file or directory', problem)
        # Older clients know only this one word for "cannot be run".
        more = ": permission denied" if problem == errno.EISDIR else ""
        raise Refused("not_permitted", f'exec: "{name}": {os.strerror(problem).lower()}{more}', problem)
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{name}"
        if directory and _problem(candidate) is None:
            return candidate
    raise Refused("not_found", f'exec: "{name}": executable file not found in $PATH', errno.ENOENT)


def _problem(path: str) -> int | None:
    try:
        seen = os.stat(path)
    except OSError as error:
        return error.errno or errno.EIO
    if stat.S_ISDIR(seen.st_mode):
        return errno.EISDIR
    return None if seen.st_mode & 0o111 else errno.EACCES


def _execute(program: str, args: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
    try:
        os.execve(program, args, environment)  # noqa: S606 - the point of it all
    except OSError as error:
        # ENOENT for a file that was just seen means that its interpreter (#! or the loader) is missing.
        reason = "not_found" if error.errno == errno.ENOENT else "not_permitted"
        raise Refused(reason, f"exec {program}: {(error.strerror or '').lower()}", error.errno) from error
    raise AssertionError("unreachable")


def _execute_inside(launch: Launch, sync: socket.socket, program: str, environment: dict[str, str]) -> NoReturn:
    """As :func:`_execute`, by a child of the keeper's that is born in the container's pid namespace."""
    try:
        pid, pidfd = sc.clone_sibling()
    except OSError as error:
        text = "the seccomp profile or the limit of processes does not allow the exec to fork"
        raise Refused("not_permitted", f"{text}: {(error.strerror or '').lower()}", error.errno) from error
    if pid == 0:
        _session(launch.tty)
        _execute(program, launch.process.args, environment)
    sc.send_fds(sync, INSIDE + str(pid).encode(), [pidfd])
    os._exit(NEVER_RAN)


def _execute_holder(
    holder: int, launch: Launch, sync: socket.socket, program: str, environment: dict[str, str]
) -> NoReturn:
    """As :func:`_execute`, with a tiny init of its own as pid 1 (see tinyinit.c), which tells how that went."""
    os.set_inheritable(sync.fileno(), True)
    words = ("slipway-init", "1" if launch.tty else "0", str(sync.fileno()), program, *launch.process.args)
    try:
        os.execve(holder, words, environment)  # noqa: S606 - the point of it all
    except OSError as error:
        raise Refused("other", f"the init cannot be executed: {(error.strerror or '').lower()}", error.errno) from error
    raise AssertionError("unreachable")
