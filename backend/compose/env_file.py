"""The grammar of `.env` and `env_file` files. Pure.

`KEY=value` or `KEY: value` a line, `export` allowed before it; a line that is a key alone takes that variable's value
from the surroundings. A `#` begins a comment at the start of a line and after a blank. Single quotes keep everything
as it is, double quotes know `\\n \\r \\t \\" \\\\ \\$`; both may span lines. Variables are expanded (interpolate.py) in
bare and double-quoted values, earlier lines of the file included.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from backend.compose.errors import ComposeError, Mark
from backend.compose.interpolate import BadTemplate, Lookup, substitute

_EXPORT = re.compile(r"export[ \t]+")
_SPACE = re.compile(r"[ \t]*")
_BARE_END = re.compile(r"[ \t]#")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$",
            "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def parse_env(text: str, file: str, lookup: Lookup) -> dict[str, str]:
    """The variables of an env file's *text*, in its order.

    Args:
        file: its name, for errors.
        lookup: the surroundings' variables, for expansions and for keys without a value; they win over the file's own
            in expansions, as docker compose has it.

    Raises:
        ComposeError: with file, line and column.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        at = _line(text, at, file, lookup, found)
    return found


def _line(text: str, at: int, file: str, lookup: Lookup, found: dict[str, str]) -> int:
    end = _end_of_line(text, at)
    start = _skip_space(text, at)
    if start >= end or text[start] == "#":
        return end + 1
    if export := _EXPORT.match(text, start):
        start = export.end()
    split = next((i for i in range(start, end) if text[i] in "=:"), None)
    key = text[start:split if split is not None else end].rstrip(" \t")
    if split is None and "#" in key:
        key = key[: key.index("#")].rstrip(" \t")
    mark = _mark(text, start, file)
    if not key:
        raise ComposeError("a line needs a variable's name before its `=`", mark)
    if any(c.isspace() for c in key) or "\0" in key:
        raise ComposeError(f"a variable's name cannot contain a blank: {key!r}", mark)
    if split is None:
        inherited = lookup(key)
        if inherited is not None:
            found[key] = inherited
        return end + 1

    def known(name: str) -> str | None:
        outside = lookup(name)
        return found.get(name) if outside is None else outside

    found[key], following = _value(text, split + 1, file, known)
    return following


def _value(text: str, at: int, file: str, lookup: Lookup) -> tuple[str, int]:
    at = _skip_space(text, at)
    quote = text[at : at + 1]
    if quote not in ("'", '"') or not quote:
        end = _end_of_line(text, at)
        comment = _BARE_END.search(text, max(at - 1, 0), end) if at else None
        bare = text[at : comment.start() if comment and comment.start() >= at else end].rstrip(" \t")
        return _expanded(bare, lookup, _mark(text, at, file)), end + 1
    mark = _mark(text, at, file)
    close = _closing_quote(text, at + 1, quote)
    if close is None:
        raise ComposeError(f"the quote {quote} is never closed", mark)
    inner = text[at + 1 : close]
    value = inner if quote == "'" else _expanded(_unescaped(inner), lookup, mark)
    return value, _end_of_line(text, close) + 1


def _closing_quote(text: str, at: int, quote: str) -> int | None:
    while at < len(text):
        if text[at] == "\\" and quote == '"':
            at += 2
            continue
        if text[at] == quote:
            return at
        at += 1
    return None


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), text, flags=re.S)


def _expanded(text: str, lookup: Callable[[str], str | None], mark: Mark) -> str:
    try:
        return substitute(text, lookup)
    except BadTemplate as error:
        raise ComposeError(str(error), mark) from None


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _end_of_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _mark(text: str, at: int, file: str) -> Mark:
    return Mark(file, text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1)
