"""Which program has a port: for the message that tells why it cannot be published."""

from __future__ import annotations

import os
from collections.abc import Iterator

_LISTEN = "0A"      # TCP's state in /proc/net/tcp
_MOST = 4096        # processes looked at


def _sockets(protocol: str, port: int) -> Iterator[str]:
    """The inodes of sockets bound to *port*."""
    for family in ("", "6"):
        try:
            with open(f"/proc/thread-self/net/{protocol}{family}", encoding="ascii") as table:
                lines = table.readlines()[1:]
        except OSError:      # this kernel has no such protocol
            continue
        for line in lines:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and (protocol != "tcp" or fields[3] == _LISTEN):
                yield fields[9]


def holder(protocol: str, port: int) -> str:
    """``"nginx, process 123"``, or "" where it cannot be found out (another namespace's view, or it has gone)."""
    wanted = {f"socket:[{inode}]" for inode in _sockets(protocol, port)}
    if not wanted:
        return ""
    for process in [name for name in os.listdir("/proc") if name.isdigit()][:_MOST]:
        try:
            if any(_link(process, name) in wanted for name in os.listdir(f"/proc/{process}/fd")):
                with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as source:
                    return f"{source.read().strip()}, process {process}"
        except OSError:      # it ended meanwhile
            continue
    return ""


def _link(process: str, name: str) -> str:
    try:
        return os.readlink(f"/proc/{process}/fd/{name}")
    except OSError:          # closed meanwhile
        return ""
