"""In which pid namespaces somebody may trace others: there the first stage of an exec must not be seen.

That stage has all capabilities, and whoever has SYS_PTRACE in the host's user namespace could take it over. So in such
a namespace it stays outside: it joins everything else, becomes what the exec asked for, and only then forks the
process that is inside and executes the program at once, with nothing left that is worth taking.
"""

from __future__ import annotations

import os

from backend.runtime.caps import mask

_PTRACE = mask(["CAP_SYS_PTRACE"])


def may_trace(bounding: int, *, own_ids: bool) -> bool:
    """Whether a process with these capabilities can look into others; *own_ids*: in a user namespace of its own."""
    return bool(bounding & _PTRACE) and not own_ids


class Tracers:
    """The pid namespaces with a tracer in them, by inode. One that is gone stays noted, which only costs a fork."""

    def __init__(self) -> None:
        self._namespaces: set[int] = set()

    def note(self, pid: int) -> None:
        """Process *pid* may trace."""
        try:
            self._namespaces.add(_namespace(pid))
        except OSError:
            return  # it has ended, and its namespace if it was its first process

    def beside(self, pid: int) -> bool:
        """Whether somebody in the pid namespace of *pid* may trace."""
        try:
            return _namespace(pid) in self._namespaces
        except OSError:
            return True


def _namespace(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/pid").st_ino
