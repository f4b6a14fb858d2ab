"""Flags as Docker's programs read them: ``-it``, ``-p8080:80``, ``--rm``, ``--rm=false``, ``--name x``, ``--name=x``.

Its own reader, because argparse knows neither ``--flag=false`` nor "the first word that is no flag ends the flags",
which `run` and `exec` depend on, and costs more to import than a verb takes.
"""

from __future__ import annotations

import sys

from app.cli.errors import Usage

TYPING = False
if TYPING:
    from typing import Any

#: The exit status after a flag that makes no sense.
FLAG_ERROR = 125
#: kind -> what it holds when not given
_DEFAULTS: dict[str, Any] = {"switch": False, "text": "", "number": None, "list": ()}


class Flag:
    """One flag. *kind*: ``switch``, ``text``, ``number`` (an integer) or ``list`` (given again and again); *also*: old
    names of it."""

    __slots__ = ("about", "also", "default", "key", "kind", "name", "short")

    def __init__(self, name: str, kind: str = "switch", about: str = "", *, short: str = "", default: Any = None,
                 also: tuple[str, ...] = ()) -> None:
        self.name, self.kind, self.about, self.short, self.also = name, kind, about, short, also
        self.key = name.replace("-", "_")
        self.default = _DEFAULTS[kind] if default is None else default


class Options:
    """What was given: one attribute a flag (dashes as underscores); ``words``: the rest."""

    def __init__(self, values: dict[str, Any], words: list[str], given: set[str]) -> None:
        self._values = values
        self.words = words
        self.given = given

    def __getattr__(self, key: str) -> Any:
        try:
            return self._values[key]
        except KeyError:
            raise AttributeError(key) from None


class Parser:
    """The flags of one verb. *intermixed*: flags may follow words; *least*, *most*: how many words it takes.

    A wrong flag ends with 125 and a wrong number of words with 1, as Docker's programs do.
    """

    def __init__(self, usage: str, about: str, *flags: Flag, intermixed: bool = True, least: int = 0,
                 most: int | None = None) -> None:
        self.usage, self.about, self.flags, self.intermixed = usage, about, flags, intermixed
        self.least, self.most = least, most
        self._long = {name: flag for flag in flags for name in (flag.name, *flag.also)}
        self._short = {flag.short: flag for flag in flags if flag.short}

    def parse(self, words: list[str]) -> Options:
        """Reads what follows the verb. ``--help`` prints and ends the program.

        Raises:
            Usage: it makes no sense; the text says why.
        """
        values: dict[str, Any] = {f.key: list(f.default) if f.kind == "list" else f.default for f in self.flags}
        given: set[str] = set()
        rest: list[str] = []
        queue = list(reversed(words))
        while queue:
            word = queue.pop()
            if word == "--":
                rest += reversed(queue)
                break
            if word.startswith("--"):
                self._read_long(word, queue, values, given)
            elif word.startswith("-") and len(word) > 1:
                self._read_short(word, queue, values, given)
            else:
                rest.append(word)
                if not self.intermixed:
                    rest += reversed(queue)
                    break
        if len(rest) < self.least or (self.most is not None and len(rest) > self.most):
            wanted = f"at least {self.least}" if self.most is None else (
                f"{self.least or 'no'}" if self.least == self.most else f"{self.least} to {self.most}")
            verb = self.usage.split(" [")[0].split(" CONTAINER")[0].split(" IMAGE")[0]
            raise Usage(f"`slipway {verb}` takes {wanted} word{'' if wanted.endswith(' 1') or wanted == '1' else 's'} "
                        f"besides its flags, and got {len(rest) or 'none'}. Usage: slipway {self.usage}")
        return Options(values, rest, given)

    def _read_long(self, word: str, queue: list[str], values: dict[str, Any], given: set[str]) -> None:
        name, explicit, value = word[2:].partition("=")
        if name == "help":
            self._help()
        flag = self._long.get(name)
        if flag is None:
            raise Usage(f"unknown flag --{name}. `slipway {self.usage.split(' [')[0]} --help` lists the flags.",
                        FLAG_ERROR)
        if flag.kind == "switch":
            value = value if explicit else "true"
        elif not explicit:
            value = self._next(flag, queue)
        self._put(flag, value, values, given)

    def _read_short(self, word: str, queue: list[str], values: dict[str, Any], given: set[str]) -> None:
        letters = word[1:]
        while letters:
            flag = self._short.get(letters[0])
            if flag is None:
                if letters[0] == "h":
                    self._help()
                raise Usage(f"unknown flag -{letters[0]} in {word}. `slipway {self.usage.split(' [')[0]} --help` lists "
                            "the flags.", FLAG_ERROR)
            letters = letters[1:]
            if flag.kind != "switch":
                self._put(flag, letters.removeprefix("=") if letters else self._next(flag, queue), values, given)
                return
            value, letters = (letters[1:], "") if letters.startswith("=") else ("true", letters)
            self._put(flag, value, values, given)

    def _next(self, flag: Flag, queue: list[str]) -> str:
        if not queue:
            raise Usage(f"--{flag.name} needs a value.", FLAG_ERROR)
        return queue.pop()

    def _put(self, flag: Flag, value: str, values: dict[str, Any], given: set[str]) -> None:
        given.add(flag.key)
        if flag.kind == "list":
            values[flag.key].append(value)
        elif flag.kind == "number":
            try:
                values[flag.key] = int(value)
            except ValueError:
                raise Usage(f"--{flag.name} takes a whole number, not {value!r}.", FLAG_ERROR) from None
        elif flag.kind == "switch":
            if value.lower() not in ("true", "false", "1", "0", "t", "f"):
                raise Usage(f"--{flag.name} takes true or false, not {value!r}.", FLAG_ERROR)
            values[flag.key] = value.lower() in ("true", "1", "t")
        else:
            values[flag.key] = value

    def _help(self) -> None:
        print(f"usage: slipway {self.usage}\n\n{self.about}\n")
        marks = [(f"-{f.short}, " if f.short else "    ") + f"--{f.name}" + ("" if f.kind == "switch" else f" {f.kind}")
                 for f in self.flags]
        width = max(map(len, marks), default=0)
        for mark, flag in zip(marks, self.flags, strict=True):
            print(f"  {mark:<{width}}  {flag.about}".rstrip())
        sys.exit(0)
