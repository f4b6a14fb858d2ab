"""A process as /proc shows it, and the columns that ps makes of it (ps(1), STANDARD FORMAT SPECIFIERS)."""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Callable
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
_SCHEDULERS = {0: "TS", 1: "FF", 2: "RR", 3: "B", 5: "IDL", 6: "DLN"}


@dataclass(frozen=True, slots=True)
class Process:
    """What /proc says of a process. Times in ticks, sizes in kB; `uids` and `gids`: real, effective, saved."""

    pid: int
    ppid: int
    group: int
    session: int
    foreground: int
    uids: tuple[int, int, int]
    gids: tuple[int, int, int]
    state: str
    flags: int
    tty: str
    name: str
    command: str
    faults: tuple[int, int]
    user_ticks: int
    system_ticks: int
    started: int
    priority: int
    nice: int
    threads: int
    processor: int
    policy: int
    size: int
    resident: int
    locked: bool
    waits_in: str


def read_process(pid: int) -> Process | None:
    """The process, None when it has ended meanwhile."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
        with open(f"/proc/{pid}/cmdline", "rb") as raw:
            words = raw.read(64 << 10).rstrip(b"\0").split(b"\0")
        status = _status(pid)
        waits_in = _wchan(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = text[text.index("(") + 1:text.rindex(")")]
    fields = text[text.rindex(")") + 2:].split()
    number = [int(one) if one.lstrip("-").isdigit() else 0 for one in fields]
    command = b" ".join(words).decode(errors="replace") or f"[{name}]"
    return Process(
        pid, number[1], number[2], number[3], number[5], _three(status, "Uid"), _three(status, "Gid"), fields[0],
        number[6], _tty(number[4]), name, command, (number[7], number[9]), number[11], number[12], number[19],
        number[15], number[16], number[17], number[36], number[38], number[20] // 1024, number[21] * _PAGE_KB,
        status.get("VmLck", "0").split()[0] != "0", waits_in)


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def _three(status: dict[str, str], name: str) -> tuple[int, int, int]:
    real, effective, saved = (int(one) for one in status[name].split()[:3])
    return real, effective, saved


def _wchan(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/wchan", encoding="ascii", errors="replace") as file:
            text = file.read()
    except PermissionError:
        return "?"
    return "-" if text in ("", "0") else text


def _tty(number: int) -> str:
    major, minor = (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)
    return f"pts/{minor}" if 136 <= major <= 143 else "?"


def _clock(ticks: int) -> str:
    seconds = ticks // _TICKS
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _used(one: Process) -> int:
    return one.user_ticks + one.system_ticks


def _bsd_time(one: Process) -> str:
    seconds = _used(one) // _TICKS
    return f"{seconds // 60}:{seconds % 60:02d}"


def _begun(one: Process) -> float:
    """When it began, in seconds since the epoch."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + one.started / _TICKS


def _started(one: Process) -> str:
    at = _begun(one)
    return time.strftime("%H:%M" if time.time() - at < 86400 else "%b%d", time.localtime(at))


def _start(one: Process) -> str:
    at = _begun(one)
    return time.strftime("%H:%M:%S" if time.time() - at < 86400 else "%b %d", time.localtime(at))


def _elapsed(one: Process) -> int:
    return max(0, int(time.clock_gettime(time.CLOCK_BOOTTIME) - one.started / _TICKS))


def _etime(one: Process) -> str:
    seconds = _elapsed(one)
    text = f"{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    if seconds >= 3600:
        text = f"{seconds // 3600 % 24:02d}:{text}"
    return f"{seconds // 86400}-{text}" if seconds >= 86400 else text


def _percent(one: Process) -> float:
    return _used(one) * 100 / _TICKS / max(1, _elapsed(one))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _stat(one: Process) -> str:
    """The state with what BSD's ps adds to it."""
    made = one.state
    made += "<" if one.nice < 0 else "N" if one.nice > 0 else ""
    made += "L" if one.locked else ""
    made += "s" if one.session == one.pid else ""
    made += "l" if one.threads > 1 else ""
    return made + ("+" if one.foreground == one.group else "")


Column = tuple[str, Callable[[Process], str]]


def columns(memory: int) -> dict[str, Column]:
    """All columns by their names: title, and what stands in it. *memory*: bytes of this machine."""
    share: Column = ("%MEM", lambda one: f"{one.resident * 102400 / memory:.1f}")
    return {**_COLUMNS, "pmem": share, "%mem": share, "mem": share}


def _same(column: Column, *names: str) -> dict[str, Column]:
    return dict.fromkeys(names, column)


_COLUMNS: dict[str, Column] = {
    **_same(("PID", lambda one: str(one.pid)), "pid", "tgid"), "ppid": ("PPID", lambda one: str(one.ppid)),
    **_same(("PGID", lambda one: str(one.group)), "pgid", "pgrp"),
    **_same(("SID", lambda one: str(one.session)), "sid", "sess", "session"),
    **_same(("LWP", lambda one: str(one.pid)), "lwp", "tid", "spid"),
    "tpgid": ("TPGID", lambda one: str(one.foreground)),
    **_same(("USER", lambda one: _user(one.uids[1])), "user", "uname"),
    "euser": ("EUSER", lambda one: _user(one.uids[1])),
    "ruser": ("RUSER", lambda one: _user(one.uids[0])), "uid": ("UID", lambda one: str(one.uids[1])),
    "euid": ("EUID", lambda one: str(one.uids[1])), "ruid": ("RUID", lambda one: str(one.uids[0])),
    "suid": ("SUID", lambda one: str(one.uids[2])), "gid": ("GID", lambda one: str(one.gids[1])),
    "egid": ("EGID", lambda one: str(one.gids[1])), "rgid": ("RGID", lambda one: str(one.gids[0])),
    "group": ("GROUP", lambda one: _group(one.gids[1])), "egroup": ("EGROUP", lambda one: _group(one.gids[1])),
    "rgroup": ("RGROUP", lambda one: _group(one.gids[0])),
    **_same(("TT", lambda one: one.tty), "tty", "tt"), "tname": ("TTY", lambda one: one.tty),
    **_same(("TIME", lambda one: _clock(_used(one))), "time", "cputime"),
    **_same(("TIME", lambda one: str(_used(one) // _TICKS)), "times", "cputimes"), "bsdtime": ("TIME", _bsd_time),
    "etime": ("ELAPSED", _etime), "etimes": ("ELAPSED", lambda one: str(_elapsed(one))),
    **_same(("STIME", _started), "stime"), "start_time": ("START", _started), "bsdstart": ("START", _started),
    "start": ("STARTED", _start), "lstart": ("STARTED", lambda one: time.ctime(_begun(one))),
    "c": ("C", lambda one: str(int(_percent(one)))),
    **_same(("%CPU", lambda one: f"{_percent(one):.1f}"), "pcpu", "%cpu"),
    **_same(("VSZ", lambda one: str(one.size)), "vsz", "vsize"), "sz": ("SZ", lambda one: str(one.size // _PAGE_KB)),
    **_same(("RSS", lambda one: str(one.resident)), "rss", "rssize", "rsz"), "stat": ("STAT", _stat),
    **_same(("S", lambda one: one.state), "s", "state"), **_same(("NI", lambda one: str(one.nice)), "ni", "nice"),
    "pri": ("PRI", lambda one: str(39 - one.priority)), "opri": ("PRI", lambda one: str(60 + one.priority)),
    "psr": ("PSR", lambda one: str(one.processor)), "cls": ("CLS", lambda one: _SCHEDULERS.get(one.policy, "?")),
    **_same(("NLWP", lambda one: str(one.threads)), "nlwp", "thcount"),
    **_same(("F", lambda one: f"{one.flags >> 6 & 7:o}"), "f", "flag", "flags"), "addr": ("ADDR", lambda one: "-"),
    "wchan": ("WCHAN", lambda one: one.waits_in), "min_flt": ("MINFLT", lambda one: str(one.faults[0])),
    "maj_flt": ("MAJFLT", lambda one: str(one.faults[1])),
    **_same(("COMMAND", lambda one: one.name), "comm", "ucomm"), "ucmd": ("CMD", lambda one: one.name),
    "cmd": ("CMD", lambda one: one.command), **_same(("COMMAND", lambda one: one.command), "args", "command"),
}
