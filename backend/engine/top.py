"""The processes of a container as `ps` would show them with its options, read from /proc: no program is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from backend.engine.procs import columns, read_process
from backend.errors import InvalidArgument, NotImplemented_
from backend.spec import api

#: Columns as (title, name); "" = the column's own title.
Columns = tuple[tuple[str, str], ...]
_HEAD = (("UID", "user"), ("PID", "pid"), ("PPID", "ppid"), ("C", "c"))
_TAIL = (("TTY", "tname"), ("TIME", "time"), ("CMD", "cmd"))
_FULL = (*_HEAD, ("STIME", "stime"), *_TAIL)
_EXTRA_FULL = (*_HEAD, ("", "sz"), ("", "rss"), ("", "psr"), ("STIME", "stime"), *_TAIL)
_PLAIN = (("PID", "pid"), ("TTY", "tname"), ("TIME", "time"), ("CMD", "comm"))
_LONG = (("F", "f"), ("", "s"), ("", "uid"), ("", "pid"), ("", "ppid"), ("", "c"), ("", "pri"), ("", "ni"),
         ("", "addr"), ("", "sz"), ("", "wchan"), ("TTY", "tname"), ("", "time"), ("CMD", "comm"))
_LONG_Y = (("", "s"), ("", "uid"), ("", "pid"), ("", "ppid"), ("", "c"), ("", "pri"), ("", "ni"), ("", "rss"),
           ("", "sz"), ("", "wchan"), ("TTY", "tname"), ("", "time"), ("CMD", "comm"))
_JOBS = (("", "pid"), ("", "pgid"), ("", "sid"), ("TTY", "tname"), ("", "time"), ("CMD", "comm"))
_BSD_PLAIN = (("PID", "pid"), ("TTY", "tname"), ("STAT", "stat"), ("TIME", "bsdtime"), ("COMMAND", "args"))
_BSD_USER = (("USER", "user"), ("PID", "pid"), ("%CPU", "pcpu"), ("%MEM", "pmem"), ("VSZ", "vsz"), ("RSS", "rss"),
             ("TTY", "tname"), ("STAT", "stat"), ("START", "start_time"), ("TIME", "bsdtime"), ("COMMAND", "args"))
_BSD_LONG = (("F", "f"), ("", "uid"), ("", "pid"), ("", "ppid"), ("", "pri"), ("", "ni"), ("", "vsz"), ("", "rss"),
             ("", "wchan"), ("", "stat"), ("TTY", "tname"), ("TIME", "bsdtime"), ("COMMAND", "args"))
_BSD_JOBS = (("", "ppid"), ("", "pid"), ("", "pgid"), ("", "sid"), ("TTY", "tname"), ("", "tpgid"), ("", "stat"),
             ("", "uid"), ("TIME", "bsdtime"), ("COMMAND", "args"))
#: Formats by the letter that asks for them; the letters that only choose processes change nothing: all are shown.
_UNIX = {"f": _FULL, "F": _EXTRA_FULL, "l": _LONG, "j": _JOBS}
_BSD = {"u": _BSD_USER, "l": _BSD_LONG, "j": _BSD_JOBS}
_UNIX_CHOICE, _BSD_CHOICE = frozenset("eAadNwc"), frozenset("axgrTwc")


def top(pids: Sequence[int], ps_args: str, memory: int) -> api.Top:
    """The table for `ps` options such as "-ef", "aux" or "-o pid,comm". *memory*: bytes of this machine.

    Raises :class:`NotImplemented_` for options that change it in ways not known here.
    """
    chosen, known = _Options.parse(ps_args).columns(), columns(memory)
    for _, name in chosen:
        if name not in known:
            raise InvalidArgument(f"ps: error: unknown user-defined format specifier {name!r}")
    if not any(name in ("pid", "tgid") for _, name in chosen):
        raise InvalidArgument("Couldn't find PID field in ps output")
    found = [one for one in map(read_process, sorted(pids)) if one is not None]
    return api.Top(titles=[title or known[name][0] for title, name in chosen],
                   processes=[[known[name][1](one) for _, name in chosen] for one in found])


@dataclass(slots=True)
class _Options:
    """What a line of options comes to."""

    custom: list[tuple[str, str]] = field(default_factory=list)
    format: Columns = ()
    without_flags: bool = False
    bsd: bool = False

    @classmethod
    def parse(cls, text: str) -> _Options:
        made, words = cls(), text.split() or ["-ef"]
        while words:
            word = words.pop(0)
            if word in ("--format", "-o", "o") or word.startswith("--format="):
                made.custom += _format(word.partition("=")[2] or (words.pop(0) if words else ""))
            elif word.startswith("--"):
                raise _unsupported(word)
            else:
                made._letters(word, words)
        return made

    def _letters(self, word: str, words: list[str]) -> None:
        unix = word.startswith("-")
        formats, choice = (_UNIX, _UNIX_CHOICE) if unix else (_BSD, _BSD_CHOICE)
        self.bsd = self.bsd or not unix
        letters = word.removeprefix("-")
        for position, letter in enumerate(letters):
            if letter == "o":
                self.custom += _format(letters[position + 1:] or (words.pop(0) if words else ""))
                return
            if letter in formats:
                self.format = formats[letter]
            elif letter == "y" and unix:
                self.without_flags = True
            elif letter not in choice:
                raise _unsupported(word)

    def columns(self) -> Columns:
        if self.custom:
            return tuple(self.custom)
        if self.without_flags and self.format is _LONG:
            return _LONG_Y
        return self.format or (_BSD_PLAIN if self.bsd else _PLAIN)


def _unsupported(word: str) -> NotImplemented_:
    return NotImplemented_(f"top: the ps option {word!r} is not supported; use -ef, -l, aux or -o with columns")


def _format(text: str) -> list[tuple[str, str]]:
    if not text:
        raise InvalidArgument("ps: error: format specification must follow -o")
    made = []
    for one in text.split(","):
        name, _, title = one.partition("=")
        if name := name.partition(":")[0]:         # "wchan:20" sets a width, of which a table has none
            made.append((title, name.lower()))
    return made
