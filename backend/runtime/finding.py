"""Finds the keeper of an exec-root, or executes one. Blocking: before the event loop runs, or in a thread."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
import time

from backend.runtime import syscalls as sc
from backend.runtime.protocol import MAX_MESSAGE, SOCKET, KeeperError, Op, encode
from backend.runtime.upgrade import build_id


def _dial(exec_root: str) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.connect(f"{exec_root}/{SOCKET}")
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    for forced, plain in ((32, socket.SO_SNDBUF), (33, socket.SO_RCVBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, 2 * MAX_MESSAGE)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, plain, 2 * MAX_MESSAGE)
    return sock if _answers(sock) else None


def _answers(sock: socket.socket) -> bool:
    """Whether somebody serves it: a keeper that was killed a moment ago may still have taken the connection."""
    try:
        sock.settimeout(10)
        sock.send(encode({"n": 0, "op": Op.HELLO.value}))
        if sock.recv(1 << 16):
            return True
    except OSError:
        pass  # it has gone in this moment
    sock.close()
    return False


PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keeper.py")
build = functools.cache(build_id)


def interpreter() -> int:
    """Python as the keeper is to execute it: on a read-only mount that is nowhere attached.

    /proc/PID/exe of the keeper's children, which a container may see before they execute its program, is then a file
    that cannot be opened for writing, whatever the container may do (CVE-2019-5736 overwrote a runtime so).
    """
    tree = sc.open_tree(sc.AT_FDCWD, os.path.realpath(sys.executable), sc.OPEN_TREE_CLONE)
    try:
        sc.mount_setattr(tree, add=sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV)
    except OSError:
        os.close(tree)
        raise
    return tree


def _launch(exec_root: str) -> bool:
    """Executes a keeper and waits until it listens (False: it left without); its output goes to ``keeper.log``."""
    read, write = os.pipe()
    log = os.open(f"{exec_root}/keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    python = interpreter()
    try:
        command = [sys.executable, "-I", "-S", PROGRAM, "--exec-root", exec_root, "--ready-fd", str(write)]
        subprocess.Popen(
            [*command, "--build", build()],
            executable=f"/proc/self/fd/{python}",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(write, python),
            start_new_session=True,
            cwd="/",
            env={},
        )
        os.close(write)
        write = -1
        return os.read(read, 1) == b"1"
    finally:
        for fd in (read, write, log, python):
            if fd >= 0:
                os.close(fd)


def find_or_start(exec_root: str) -> socket.socket:
    """A connected socket; starts a keeper if none answers."""
    exec_root = os.path.abspath(exec_root)
    os.makedirs(exec_root, mode=0o700, exist_ok=True)
    for attempt in range(50):
        sock = _dial(exec_root)
        if sock is not None:
            return sock
        # It fails if another helper is starting one, or an old one has not quite left: then try again.
        if not _launch(exec_root):
            time.sleep(0.02 * min(attempt, 10))
    raise KeeperError("start", "other", f"the keeper did not start; see {exec_root}/keeper.log")
