"""The processes of a container as `ps` would show them, read from /proc: no program is run."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backend.errors import InvalidArgument, NotImplemented_
from backend.spec import api

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True, slots=True)
class Process:
    """What /proc says of a process. Times in ticks, sizes in kB."""

    pid: int
    ppid: int
    uid: int
    state: str
    tty: str
    name: str
    command: str
    user_ticks: int
    system_ticks: int
    started: int
    nice: int
    size: int
    resident: int


def read_process(pid: int) -> Process | None:
    """The process, None when it has ended meanwhile."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
        with open(f"/proc/{pid}/cmdline", "rb") as raw:
            words = raw.read(64 << 10).rstrip(b"\0").split(b"\0")
        uid = os.stat(f"/proc/{pid}").st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = text[text.index("(") + 1:text.rindex(")")]
    fields = text[text.rindex(")") + 2:].split()
    command = b" ".join(words).decode(errors="replace") or f"[{name}]"
    return Process(pid, int(fields[1]), uid, fields[0], _tty(int(fields[4])), name, command, int(fields[11]),
                   int(fields[12]), int(fields[19]), int(fields[16]), int(fields[20]) // 1024,
                   int(fields[21]) * _PAGE_KB)


def _tty(number: int) -> str:
    major, minor = (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)
    return f"pts/{minor}" if 136 <= major <= 143 else "?"


def _clock(ticks: int) -> str:
    seconds = ticks // _TICKS
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _booted() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _started(one: Process) -> str:
    at = _booted() + one.started / _TICKS
    return time.strftime("%H:%M" if time.time() - at < 86400 else "%b%d", time.localtime(at))


def _elapsed(one: Process) -> int:
    return max(0, int(time.clock_gettime(time.CLOCK_BOOTTIME) - one.started / _TICKS))


def _etime(one: Process) -> str:
    seconds = _elapsed(one)
    text = f"{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    if seconds >= 3600:
        text = f"{seconds // 3600 % 24:02d}:{text}"
    return f"{seconds // 86400}-{text}" if seconds >= 86400 else text


def _percent(one: Process) -> float:
    return (one.user_ticks + one.system_ticks) * 100 / _TICKS / max(1, _elapsed(one))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


_COLUMNS: dict[str, tuple[str, Callable[[Process], str]]] = {
    "pid": ("PID", lambda one: str(one.pid)), "ppid": ("PPID", lambda one: str(one.ppid)),
    "user": ("USER", lambda one: _user(one.uid)), "uid": ("UID", lambda one: str(one.uid)),
    "euser": ("EUSER", lambda one: _user(one.uid)), "tty": ("TT", lambda one: one.tty),
    "tname": ("TTY", lambda one: one.tty), "time": ("TIME", lambda one: _clock(one.user_ticks + one.system_ticks)),
    "etime": ("ELAPSED", _etime), "etimes": ("ELAPSED", lambda one: str(_elapsed(one))),
    "stime": ("STIME", _started), "start": ("STARTED", _started), "c": ("C", lambda one: str(int(_percent(one)))),
    "pcpu": ("%CPU", lambda one: f"{_percent(one):.1f}"), "%cpu": ("%CPU", lambda one: f"{_percent(one):.1f}"),
    "vsz": ("VSZ", lambda one: str(one.size)), "rss": ("RSS", lambda one: str(one.resident)),
    "stat": ("STAT", lambda one: one.state), "state": ("S", lambda one: one.state), "s": ("S", lambda one: one.state),
    "ni": ("NI", lambda one: str(one.nice)), "nice": ("NI", lambda one: str(one.nice)),
    "comm": ("COMMAND", lambda one: one.name), "cmd": ("CMD", lambda one: one.command),
    "args": ("COMMAND", lambda one: one.command), "command": ("COMMAND", lambda one: one.command),
}
_FULL = (("UID", "user"), ("PID", "pid"), ("PPID", "ppid"), ("C", "c"), ("STIME", "stime"), ("TTY", "tname"),
         ("TIME", "time"), ("CMD", "cmd"))
_AUX = (("USER", "user"), ("PID", "pid"), ("%CPU", "pcpu"), ("%MEM", "mem"), ("VSZ", "vsz"), ("RSS", "rss"),
        ("TTY", "tname"), ("STAT", "stat"), ("START", "start"), ("TIME", "time"), ("COMMAND", "args"))
_PLAIN = (("PID", "pid"), ("TTY", "tname"), ("TIME", "time"), ("CMD", "comm"))


def top(pids: Sequence[int], ps_args: str, memory: int) -> api.Top:
    """The table for `ps` options such as "-ef", "aux" or "-o pid,comm". *memory*: bytes of this machine.

    Raises :class:`NotImplemented_` for options that change it in ways not known here.
    """
    columns = _chosen(ps_args)
    found = [one for one in map(read_process, sorted(pids)) if one is not None]
    values: dict[str, tuple[str, Callable[[Process], str]]] = {
        **_COLUMNS, "mem": ("%MEM", lambda one: f"{one.resident * 102400 / memory:.1f}"),
        "pmem": ("%MEM", lambda one: f"{one.resident * 102400 / memory:.1f}")}
    for _, key in columns:
        if key not in values:
            raise InvalidArgument(f"ps: error: unknown user-defined format specifier {key!r}")
    return api.Top(titles=[title or values[key][0] for title, key in columns],
                   processes=[[values[key][1](one) for _, key in columns] for one in found])


def _chosen(ps_args: str) -> list[tuple[str, str]]:
    words = ps_args.split() or ["-ef"]
    custom: list[tuple[str, str]] = []
    base: tuple[tuple[str, str], ...] | None = None
    while words:
        word = words.pop(0)
        option = word.lstrip("-")
        if option in ("o", "eo", "axo") or word == "--format":
            custom += _format(words.pop(0) if words else "")
        elif option.startswith(("o", "eo")) and word.startswith("-"):
            custom += _format(option[option.index("o") + 1:])
        elif option in ("ef", "f", "aef", "Af", "fe"):
            base = _FULL
        elif option in ("aux", "auxw", "auxww", "u", "au"):
            base = _AUX
        elif option in ("e", "A", "a", "ax", "x"):
            base = base or _PLAIN
        else:
            raise NotImplemented_(f"top: the ps option {word!r} is not supported; use -ef, aux or -o with columns")
    return custom or list(base or _PLAIN)


def _format(text: str) -> list[tuple[str, str]]:
    if not text:
        raise InvalidArgument("ps: error: format specification must follow -o")
    made = []
    for one in text.replace(" ", ",").split(","):
        key, _, title = one.partition("=")
        if key:
            made.append((title, key.lower()))
    return made
