"""What the older half of the kernel's packet filter (xtables, ``iptables-legacy``) does with forwarded packets.

Its tables are not in nftables' lists. They are read by the socket option that the program itself uses, and only where
they exist already: the question alone would bring one into being.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import socket
import struct

log = logging.getLogger(__name__)

_FILTER = b"filter"
_GET_INFO, _GET_ENTRIES = 64, 65       # IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES; the same numbers for IPv6
_INFO = struct.Struct("=32sI5I5III")   # name, valid hooks, where each hook begins, its policy's rule, rules, bytes
_FORWARD = 2                           # NF_INET_FORWARD
_ENTRIES = 40                          # bytes before the rules: name, size, padding
_DROP = -1                             # the verdict NF_DROP, as the rules have it
_TRIES = 3
_FAMILIES = (                          # family, list of tables, level, where a rule says how far off its target is
    ("ip", "/proc/thread-self/net/ip_tables_names", socket.AF_INET, socket.SOL_IP, 88),
    ("ip6", "/proc/thread-self/net/ip6_tables_names", socket.AF_INET6, socket.IPPROTO_IPV6, 140),
)


def dropping() -> list[str]:
    """The families ("ip", "ip6") of this network namespace whose filter table drops what no rule lets pass."""
    found = []
    for name, tables, family, level, at in _FAMILIES:
        try:
            if _has_filter(tables) and _drops(family, level, at):
                found.append(name)
        except OSError as problem:
            log.warning("the %s table of iptables-legacy cannot be read: %s", name, problem)
    return found


def _has_filter(path: str) -> bool:
    try:
        with open(path, "rb") as source:
            return _FILTER in source.read().split()
    except FileNotFoundError:      # a kernel without it
        return False


def _drops(family: int, level: int, at: int) -> bool:
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as control:
        for _ in range(_TRIES):
            info = _INFO.unpack(_asked(control, level, _GET_INFO, bytearray(_FILTER.ljust(_INFO.size, b"\0"))))
            policy, size = info[7 + _FORWARD], info[13]
            wanted = bytearray(_ENTRIES + size)
            struct.pack_into("=32sI", wanted, 0, _FILTER, size)
            try:
                rules = _asked(control, level, _GET_ENTRIES, wanted)
            except BlockingIOError:      # somebody changed the table in between
                continue
            rule = _ENTRIES + policy
            (offset,) = struct.unpack_from("=H", rules, rule + at)
            (verdict,) = struct.unpack_from("=i", rules, rule + offset + 32)      # after the target's own head
            return bool(verdict == _DROP)
    raise OSError(errno.EAGAIN, "it changes all the time")


def _asked(control: socket.socket, level: int, option: int, buffer: bytearray) -> bytearray:
    """getsockopt with something in the buffer, which Python's own cannot."""
    length = ctypes.c_uint32(len(buffer))
    view = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    if ctypes.CDLL(None, use_errno=True).getsockopt(control.fileno(), level, option, view, ctypes.byref(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer
