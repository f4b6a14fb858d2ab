"""What systemd wants to hear and hands over: sd_notify(3), sd_listen_fds(3). Without systemd nothing happens."""

from __future__ import annotations

import os
import socket

_FIRST = 3


def close_inherited() -> None:
    """Close what the starter left open, but the standard streams and what systemd hands over: a pipe of a shell that
    a helper held would keep its reader waiting for as long as the helper runs."""
    given = int(os.environ.get("LISTEN_FDS", "0")) if os.environ.get("LISTEN_PID") == str(os.getpid()) else 0
    os.closerange(_FIRST + given, os.sysconf("SC_OPEN_MAX"))


def notify(state: str) -> None:
    """Tell the service manager *state*."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode(), address)


def sockets() -> list[socket.socket]:
    """Listening sockets that systemd holds for us."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    found = []
    for fd in range(_FIRST, _FIRST + int(os.environ.get("LISTEN_FDS", "0"))):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        found.append(sock)
    return found
