"""Thin wrappers of the system calls that Python 3.11 lacks, in the kernel's own names.

The only door to ctypes in the audited room (besides :mod:`backend.runtime.seccomp`). Each function makes one call and
raises :class:`OSError` through :func:`oserror`; nothing here decides anything. ``PyDLL`` is used on purpose: it keeps
the GIL, so that ``clone3`` returns in the child with the interpreter's state as it was, and errno is read at once.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# --- flags, as in the kernel's uapi headers -------------------------------------------------------------------------
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_NEWTIME = 0x00000080
CLONE_PARENT = 0x00008000
CLONE_PIDFD = 0x00001000
CLONE_INTO_CGROUP = 0x200000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
MOUNT_ATTR_IDMAP = 0x100000

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_FDCWD = -100
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2

CLOSE_RANGE_CLOEXEC = 4
TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431
NS_GET_NSTYPE = 0xB703
KEYCTL_JOIN_SESSION_KEYRING = 1

PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
DEVPTS_SUPER_MAGIC = 0x1CD1
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270
TMPFS_MAGIC = 0x01021994

# Numbers that differ between the architectures; those from 424 on are the same everywhere.
_NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {"clone": 56, "pivot_root": 155, "bpf": 321, "keyctl": 250},
    "aarch64": {"clone": 220, "pivot_root": 41, "bpf": 280, "keyctl": 219},
}
_machine = os.uname().machine
_nr = _NUMBERS.get(_machine, {})

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_unlocked = ctypes.CDLL(None, use_errno=True)  # other threads run meanwhile: for what may wait for a disk


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls",
                     "set_tid", "set_tid_size", "cgroup")
    )  # fmt: skip


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttr(ctypes.Structure):
    _fields_ = (("attr_set", ctypes.c_uint64), ("attr_clr", ctypes.c_uint64), ("propagation", ctypes.c_uint64),
                ("userns_fd", ctypes.c_uint64))  # fmt: skip


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def oserror(what: str) -> OSError:
    """The last failure as an :class:`OSError` that names the call and its object."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)


def _call(what: str, number: int, *arguments: object) -> int:
    """``syscall(number, ...)``: integers are passed as full machine words, bytes as pointers."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        raise oserror(what)
    return result


def _number(name: str) -> int:
    try:
        return _nr[name]
    except KeyError:
        raise OSError(errno.ENOSYS, f"no number for system call {name} on {_machine}") from None


def _bytes(path: str | bytes | None) -> bytes | None:
    return os.fsencode(path) if isinstance(path, str) else path


# --- processes and namespaces ---------------------------------------------------------------------------------------
def clone3(flags: int, cgroup_fd: int = -1) -> tuple[int, int]:
    """Forks with *flags*. Returns ``(0, -1)`` in the child and ``(pid, pidfd)`` (close-on-exec) in the parent.

    Only for a process with one thread: Python's and libc's fork handlers do not run. With CLONE_PARENT the child is the
    caller's sibling, and its exit signal its caller's (the kernel takes no other).
    """
    pidfd = ctypes.c_int(-1)
    signal = 0 if flags & CLONE_PARENT else 17
    arguments = _CloneArgs(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=signal)
    if cgroup_fd >= 0:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup_fd
    pid = _call("clone3", 435, ctypes.byref(arguments), ctypes.sizeof(arguments))
    return pid, pidfd.value if pid else -1


def clone_sibling() -> tuple[int, int]:
    """Forks a child of our parent's. Returns as :func:`clone3`; by the older call, which seccomp filters can judge."""
    pidfd = ctypes.c_int(-1)
    flags = CLONE_PARENT | CLONE_PIDFD | 17
    pid = _call("clone", _number("clone"), flags, 0, ctypes.byref(pidfd), 0, 0)
    return pid, pidfd.value if pid else -1


def setns(fd: int, kind: int) -> None:
    """Enters the namespace of *fd*, or those of *kind* of the process that a pidfd stands for."""
    if _libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)) < 0:
        raise oserror("setns")


def unshare(flags: int) -> None:
    """Leaves the namespaces of *flags* for fresh ones."""
    if _libc.unshare(ctypes.c_int(flags)) < 0:
        raise oserror("unshare")


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """``prctl(2)`` with integer arguments."""
    words = [ctypes.c_ulong(x & 0xFFFFFFFFFFFFFFFF) for x in (a, b, c, d)]
    result = int(_libc.prctl(ctypes.c_int(option), *words))
    if result < 0:
        raise oserror(f"prctl {option}")
    return result


def set_name(name: str) -> None:
    """Names the calling thread as ``ps`` shows it (15 bytes at most)."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def seccomp_load(program: bytes) -> None:
    """Installs a classic BPF *program* (``struct sock_filter[]``) as the calling thread's seccomp filter."""
    buffer = ctypes.create_string_buffer(program, len(program))
    head = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(head))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Sets the capability sets of the calling thread from bit masks (version 3 of the structure: two words a set)."""
    head = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0), 8)
    words: list[int] = []
    for shift in (0, 32):
        words += [(mask >> shift) & 0xFFFFFFFF for mask in (effective, permitted, inheritable)]
    data = ctypes.create_string_buffer(struct.pack("=6I", *words), 24)
    if _libc.capset(head, data) < 0:
        raise oserror("capset")


def capget() -> tuple[int, int, int]:
    """Effective, permitted and inheritable sets of the calling thread as bit masks."""
    head = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0), 8)
    data = ctypes.create_string_buffer(24)
    if _libc.capget(head, data) < 0:
        raise oserror("capget")
    low = struct.unpack("=6I", data.raw)
    return low[0] | low[3] << 32, low[1] | low[4] << 32, low[2] | low[5] << 32


def setfsids(uid: int, gid: int) -> None:
    """Sets the IDs that count for files (and only for them). OSError where they did not take."""
    for call, wanted in ((_libc.setfsgid, gid), (_libc.setfsuid, uid)):
        call(ctypes.c_uint32(wanted))
        if call(ctypes.c_uint32(0xFFFFFFFF)) & 0xFFFFFFFF != wanted:  # -1 changes nothing and tells what is
            raise OSError(errno.EINVAL, "the file system IDs could not be set")


def join_session_keyring(name: str) -> None:
    """Gives the process a session keyring of its own, so that it cannot search the host's."""
    _call("keyctl", _number("keyctl"), KEYCTL_JOIN_SESSION_KEYRING, os.fsencode(name))


def setdomainname(name: str) -> None:
    """``setdomainname(2)``: the NIS domain of the UTS namespace."""
    data = name.encode()
    if _libc.setdomainname(data, ctypes.c_size_t(len(data))) < 0:
        raise oserror("setdomainname")


def pidfd_getfd(pidfd: int, number: int) -> int:
    """A copy of descriptor *number* of another process (close-on-exec): the same open file, not a path to it."""
    return _call("pidfd_getfd", 438, pidfd, number, 0)


PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info) with the first published size, 64 bytes
PIDFD_INFO_EXIT = 1 << 3


def pidfd_exit_status(pidfd: int) -> int | None:
    """The wait status of a dead process that is *not* our child (kernel 6.15 and later); None: not told."""
    buffer = bytearray(struct.pack("=Q", PIDFD_INFO_EXIT) + bytes(56))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, buffer)
    except OSError as error:
        # ESRCH: reaped before the information was kept; the others: an older kernel does not know the request.
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOTTY, errno.EREMOTE):
            return None
        raise
    mask = int(struct.unpack_from("=Q", buffer, 0)[0])
    return int(struct.unpack_from("=i", buffer, 60)[0]) if mask & PIDFD_INFO_EXIT else None


# --- contents on demand ---------------------------------------------------------------------------------------------
FAN_CLOEXEC, FAN_CLASS_PRE_CONTENT, FAN_UNLIMITED_QUEUE = 0x1, 0x8, 0x10
FAN_MARK_ADD = 0x1
FAN_PRE_ACCESS = 0x00100000
FAN_ALLOW, FAN_DENY = 0x1, 0x2


def fanotify_init(flags: int, event_flags: int) -> int:
    """``fanotify_init(2)``."""
    group = int(_libc.fanotify_init(ctypes.c_uint(flags), ctypes.c_uint(event_flags)))
    if group < 0:
        raise oserror("fanotify_init")
    return group


def fanotify_mark(group: int, flags: int, mask: int, path: str) -> None:
    """``fanotify_mark(2)`` on *path*."""
    words = ctypes.c_int(group), ctypes.c_uint(flags), ctypes.c_uint64(mask), ctypes.c_int(AT_FDCWD), _bytes(path)
    if _libc.fanotify_mark(*words) < 0:
        raise oserror(f"fanotify_mark {path}")


# --- mounts ---------------------------------------------------------------------------------------------------------
def mount(source: str | None, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """``mount(2)``."""
    result = _libc.mount(_bytes(source), _bytes(target), _bytes(kind), ctypes.c_ulong(flags), _bytes(data))
    if result < 0:
        raise oserror(f"mount {kind or source or ''} on {target}")


def umount2(target: str, flags: int = 0) -> None:
    """``umount2(2)``."""
    if _libc.umount2(_bytes(target), ctypes.c_int(flags)) < 0:
        raise oserror(f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """``pivot_root(2)``."""
    _call("pivot_root", _number("pivot_root"), _bytes(new_root), _bytes(put_old))


def openat2(directory: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Opens *path* below *directory* with the kernel's own rules for links (``RESOLVE_*``); always close-on-exec.

    EAGAIN (a rename happened while the path was followed in ``RESOLVE_IN_ROOT``) is retried a few times.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for attempt in range(64):
        try:
            return _call(path, 437, directory, _bytes(path), ctypes.byref(how), ctypes.sizeof(how))
        except OSError as error:
            if error.errno != errno.EAGAIN or attempt == 63:
                raise
    raise AssertionError("unreachable")


def fsopen(kind: str) -> int:
    """A file system context for *kind*."""
    return _call(f"fsopen {kind}", 430, _bytes(kind), FSOPEN_CLOEXEC)


def fsconfig_string(fd: int, key: str, value: str) -> None:
    """Sets one string option of a file system context."""
    _call(f"fsconfig {key}={value}", 431, fd, FSCONFIG_SET_STRING, _bytes(key), _bytes(value), 0)


def fsconfig_flag(fd: int, key: str) -> None:
    """Sets one option without a value."""
    _call(f"fsconfig {key}", 431, fd, FSCONFIG_SET_FLAG, _bytes(key), None, 0)


def fsconfig_create(fd: int) -> None:
    """Makes the superblock of a configured context."""
    _call("fsconfig create", 431, fd, FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(fd: int, attributes: int = 0) -> int:
    """A detached mount of a context."""
    return _call("fsmount", 432, fd, FSMOUNT_CLOEXEC, attributes)


def move_mount(source: int, target: int) -> None:
    """Attaches the detached mount *source* on the object that the descriptor *target* stands for."""
    _call("move_mount", 429, source, b"", target, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


def open_tree(directory: int, path: str, flags: int) -> int:
    """A descriptor of a mount tree; with ``OPEN_TREE_CLONE`` a detached copy of it."""
    return _call(f"open_tree {path}", 428, directory, _bytes(path), flags | OPEN_TREE_CLOEXEC)


def mount_setattr(
    fd: int, *, add: int = 0, remove: int = 0, propagation: int = 0, recursive: bool = False, userns: int = -1
) -> None:
    """Adds and removes ``MOUNT_ATTR_*`` on the mount of *fd*; flags that are not named stay as they are.

    *userns*: a user namespace by whose mapping the IDs on the file system are seen from now on.
    """
    attributes = _MountAttr(add | (MOUNT_ATTR_IDMAP if userns >= 0 else 0), remove, propagation, max(userns, 0))
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _call("mount_setattr", 442, fd, b"", flags, ctypes.byref(attributes), ctypes.sizeof(attributes))


def fstatfs_type(fd: int) -> int:
    """The magic number of the file system that *fd* lives on."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(ctypes.c_int(fd), buffer) < 0:
        raise oserror("fstatfs")
    return int(struct.unpack_from("=q", buffer.raw, 0)[0]) & 0xFFFFFFFF


# --- descriptors ----------------------------------------------------------------------------------------------------
def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """``close_range(2)``: closes, or with ``CLOSE_RANGE_CLOEXEC`` marks, all descriptors from *first* to *last*."""
    _call("close_range", 436, first, last, flags)


def close_all_but(keep: set[int]) -> None:
    """Closes every descriptor that is not in *keep*."""
    start = 0
    for fd in sorted(keep):
        if fd > start:
            close_range(start, fd - 1)
        start = fd + 1
    close_range(start)


def pty_peer(master: int) -> int:
    """Opens the other end of the terminal *master* without following any path (``TIOCGPTPEER``)."""
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    return fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def send_fds(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    """One message with descriptors."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


class Inbox:
    """A buffer for whole messages, made once: a fresh one of the longest size for each would be mapped and unmapped."""

    def __init__(self, size: int) -> None:
        self._view = memoryview(mmap.mmap(-1, size))  # pages that no message has touched cost nothing

    def receive(self, sock: socket.socket, count: int = 64) -> tuple[bytes, list[int]]:
        """One message with its descriptors (close-on-exec from the start)."""
        space = socket.CMSG_SPACE(count * 4)
        size, ancillary, flags, _ = sock.recvmsg_into([self._view], space, socket.MSG_CMSG_CLOEXEC)
        return bytes(self._view[:size]), _descriptors(ancillary, flags)


def recv_fds(sock: socket.socket, size: int, count: int = 32) -> tuple[bytes, list[int]]:
    """One short message with its descriptors (close-on-exec from the start)."""
    data, ancillary, flags, _ = sock.recvmsg(size, socket.CMSG_SPACE(count * 4), socket.MSG_CMSG_CLOEXEC)
    return data, _descriptors(ancillary, flags)


def _descriptors(ancillary: list[tuple[int, int, bytes]], flags: int) -> list[int]:
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for fd in fds:
            os.close(fd)
        raise OSError(errno.EMSGSIZE, "message truncated")
    return list(fds)


# --- BPF, for device rules on cgroup v2 -----------------------------------------------------------------------------
def bpf_load_device(instructions: bytes) -> int:
    """Loads an eBPF program of type ``CGROUP_DEVICE``; returns its descriptor."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack("=IIQQIIQII16sII", 15, len(instructions) // 8, ctypes.addressof(code),
                             ctypes.addressof(licence), 0, 0, 0, 0, 0, b"slipway_dev", 0, 0)  # fmt: skip
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    fd = _call("bpf load", _number("bpf"), 5, buffer, len(attributes))
    fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    return fd


def bpf_attach_device(cgroup: int, program: int, replace: int = -1) -> None:
    """Attaches a device program to the cgroup v2 directory *cgroup* (several may be attached; all must agree)."""
    allow_multi, replace_flag = 2, 4
    flags = allow_multi | (replace_flag if replace >= 0 else 0)
    attributes = struct.pack("=IIIII", cgroup, program, 6, flags, max(replace, 0))
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    _call("bpf attach", _number("bpf"), 8, buffer, len(attributes))


# --- network namespaces ---------------------------------------------------------------------------------------------
def loopback_up() -> None:
    """Brings ``lo`` of the current network namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, 0x8914, struct.pack("16sH22x", b"lo", 0x41))  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING


def inside_netns(fd: int, work: Callable[[], T]) -> T:
    """Runs *work* in the calling thread inside the network namespace *fd* and comes back.

    For threads of the helper's executor (``setns`` of a network namespace is per thread). A thread that could not
    come back would go on serving in a container's network, so in that case the process ends at once.
    """
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, CLONE_NEWNET)
        try:
            return work()
        finally:
            try:
                setns(own, CLONE_NEWNET)
            except OSError:
                os.abort()
    finally:
        os.close(own)


# --- files and memory -----------------------------------------------------------------------------------------------
def start_writeback(fd: int, offset: int, size: int) -> None:
    """Lets the disk begin with a part of a file that was written, without waiting for it (sync_file_range)."""
    number = ctypes.c_int64
    if _unlocked.sync_file_range(ctypes.c_int(fd), number(offset), number(size), ctypes.c_uint(2)) < 0:
        raise oserror("sync_file_range")


def trim_memory() -> None:
    """Gives the system back what libc keeps of freed memory; other C libraries have nothing to give."""
    trim = getattr(_unlocked, "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
