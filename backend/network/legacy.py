"""What the older half of the kernel's packet filter (xtables, ``iptables-legacy``) does with forwarded packets.

Its tables are not in nftables' lists. They are read by the socket option that the program itself uses, and only where
they exist already: the question alone would bring one into being.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Callable

log = logging.getLogger(__name__)
Asked = Callable[[socket.socket, int, int, bytearray], None]   # getsockopt (level, option) on a filled buffer

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


def dropping(asked: Asked) -> list[str]:
    """The families ("ip", "ip6") of this network namespace whose filter table drops what no rule lets pass."""
    found = []
    for name, tables, family, level, at in _FAMILIES:
        try:
            if _has_filter(tables) and _drops(asked, family, level, at):
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


def _drops(asked: Asked, family: int, level: int, at: int) -> bool:
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as control:
        for _ in range(_TRIES):
            head = bytearray(_FILTER.ljust(_INFO.size, b"\0"))
            asked(control, level, _GET_INFO, head)
            info = _INFO.unpack(head)
            policy, size = info[7 + _FORWARD], info[13]
            rules = bytearray(_ENTRIES + size)
            struct.pack_into("=32sI", rules, 0, _FILTER, size)
            try:
                asked(control, level, _GET_ENTRIES, rules)
            except BlockingIOError:      # somebody changed the table in between
                continue
            rule = _ENTRIES + policy
            (offset,) = struct.unpack_from("=H", rules, rule + at)
            (verdict,) = struct.unpack_from("=i", rules, rule + offset + 32)      # after the target's own head
            return bool(verdict == _DROP)
    raise OSError(errno.EAGAIN, "it changes all the time")
