"""Capability names, masks, and how a process gets exactly the sets that its configuration names."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from backend.runtime import syscalls as sc

# In the kernel's order (include/uapi/linux/capability.h): the position is the number.
NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
_NUMBERS = {"CAP_" + name: index for index, name in enumerate(NAMES)}
SYS_ADMIN = 1 << _NUMBERS["CAP_SYS_ADMIN"]
SYS_RESOURCE = 1 << _NUMBERS["CAP_SYS_RESOURCE"]


def mask(names: list[str] | tuple[str, ...]) -> int:
    """The bit mask of *names* (``CAP_...``). Raises :class:`ValueError` for one that does not exist."""
    bits = 0
    for name in names:
        try:
            bits |= 1 << _NUMBERS[name.upper()]
        except KeyError:
            raise ValueError(f"unknown capability {name!r}") from None
    return bits


def bounding() -> int:
    """The bounding set of the calling process: what this machine grants us at all."""
    bits = 0
    for number in range(64):
        try:
            if sc.prctl(sc.PR_CAPBSET_READ, number):
                bits |= 1 << number
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: beyond the kernel's last capability
                raise
            break
    return bits


def known() -> int:
    """All that the kernel knows: a new user namespace begins with them."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return (1 << int(file.read()) + 1) - 1


@dataclass(frozen=True, slots=True)
class CapabilitySets:
    """Five masks, already cut to what the host grants (CAP_SYS_RESOURCE is often withheld in nested machines)."""

    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int

    @classmethod
    def from_spec(cls, spec: dict[str, Any] | None, host: int) -> CapabilitySets:
        """From OCI ``process.capabilities``; without it the process gets none."""
        spec = spec or {}
        bound, effective, permitted, inheritable, ambient = (
            mask(spec.get(kind) or []) & host
            for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
        )
        permitted &= bound | permitted
        return cls(bound, effective & permitted, permitted, inheritable, ambient & permitted & inheritable)

    def drop_bounding(self, host: int) -> None:
        """Drops from the bounding set what is not ours; needs CAP_SETPCAP, so it comes before the identity changes."""
        for number in range(host.bit_length()):
            if host >> number & 1 and not self.bounding >> number & 1:
                sc.prctl(sc.PR_CAPBSET_DROP, number)

    def apply(self, extra: int = 0) -> None:
        """Sets the process's sets, with *extra* kept for a last privileged step (seccomp without no_new_privs)."""
        sc.capset(self.effective | extra, self.permitted | extra, self.inheritable)

    def raise_ambient(self) -> None:
        """Raises the ambient set; permitted and inheritable must hold it already."""
        sc.prctl(sc.PR_CAP_AMBIENT, sc.PR_CAP_AMBIENT_CLEAR_ALL)
        for number in range(self.ambient.bit_length()):
            if self.ambient >> number & 1:
                sc.prctl(sc.PR_CAP_AMBIENT, sc.PR_CAP_AMBIENT_RAISE, number)
