"""`$VAR` and `${VAR...}` in Compose files. Pure.

The grammar, as docker compose has it: `$$` is a dollar sign; `$NAME` and `${NAME}` the value; `${NAME:-d}` and
`${NAME-d}` a default, `${NAME:?e}` and `${NAME?e}` an error, `${NAME:+x}` and `${NAME+x}` a replacement; the forms with
a colon treat an empty value as missing. What follows the operator is itself interpolated, and only when it is needed.
A dollar sign that begins none of these stands for itself. Keys are never interpolated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from backend.compose.errors import ComposeError
from backend.compose.nodes import Mapping, Node, Scalar, Sequence, resolve_plain

Lookup = Callable[[str], "str | None"]
Warn = Callable[[str], None]

_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")
MAX_NESTING = 32


class BadTemplate(ValueError):
    """The text cannot be interpolated; the message says why and names no file."""


def substitute(text: str, lookup: Lookup, warn: Warn | None = None) -> str:
    """*text* with its variables replaced.

    Args:
        lookup: gives a variable's value, or None where it is not set.
        warn: is told the name of each variable that is not set and has no default.

    Raises:
        BadTemplate: an unfinished or unknown form, or a required variable (`:?`, `?`) that is missing.
    """
    result, end = _text(text, 0, lookup, warn, 0, closing=False)
    assert end == len(text)
    return result


def _text(text: str, at: int, lookup: Lookup, warn: Warn | None, depth: int, *, closing: bool) -> tuple[str, int]:
    """Interpolates from *at* to the end, or to the brace that closes the surrounding expression."""
    if depth > MAX_NESTING:
        raise BadTemplate(f"nested deeper than {MAX_NESTING} levels")
    out: list[str] = []
    while at < len(text):
        char = text[at]
        if closing and char == "}":
            return "".join(out), at
        if char != "$":
            out.append(char)
            at += 1
        elif text.startswith("$$", at):
            out.append("$")
            at += 2
        elif text.startswith("${", at):
            piece, at = _braced(text, at + 2, lookup, warn, depth)
            out.append(piece)
        elif name := _NAME.match(text, at + 1):
            out.append(_plain(name.group(), lookup, warn))
            at = name.end()
        else:
            out.append("$")
            at += 1
    if closing:
        raise BadTemplate(f"`${{` without its `}}` in {text!r}; write $$ for a dollar sign")
    return "".join(out), at


def _plain(name: str, lookup: Lookup, warn: Warn | None) -> str:
    value = lookup(name)
    if value is None and warn:
        warn(name)
    return value or ""


def _braced(text: str, at: int, lookup: Lookup, warn: Warn | None, depth: int) -> tuple[str, int]:
    match = _NAME.match(text, at)
    if not match:
        raise BadTemplate(f"`${{` needs a variable's name in {text!r}; write $$ for a dollar sign")
    name, at = match.group(), match.end()
    if text.startswith("}", at):
        return _plain(name, lookup, warn), at + 1
    operator = next((o for o in _OPERATORS if text.startswith(o, at)), None)
    if operator is None:
        found = f"{text[at]!r} after ${{{name}" if at < len(text) else f"`${{{name}` without its `}}`"
        raise BadTemplate(f"{found} in {text!r}; write $$ for a dollar sign")
    at += len(operator)
    value = lookup(name)
    there = bool(value) if operator[0] == ":" else value is not None
    wanted = there if operator[-1] == "+" else not there
    rest = ""
    if wanted:
        rest, end = _text(text, at, lookup, warn, depth + 1, closing=True)
    else:
        # What is not needed is only skipped: it must ask for no variable and raise no `?`.
        end = _skip(text, at)
    if operator[-1] == "?" and not there:
        raise BadTemplate(f"required variable {name} is missing a value" + (f": {rest}" if rest else ""))
    if operator[-1] == "+":
        return (rest if there else ""), end + 1
    return (value or "" if there else rest), end + 1


def _skip(text: str, at: int) -> int:
    """The index of the brace that closes an expression whose content is not needed."""
    level = 0
    while at < len(text):
        if text.startswith("$$", at):
            at += 2
            continue
        if text.startswith("${", at):
            level += 1
            at += 2
            continue
        if text[at] == "}":
            if level == 0:
                return at
            level -= 1
        at += 1
    raise BadTemplate(f"`${{` without its `}}` in {text!r}; write $$ for a dollar sign")


def interpolate(node: Node, lookup: Lookup, warn: Warn | None = None, path: str = "") -> Node:
    """The tree with every value interpolated. Unquoted values get the type of what came out: `${N:-3}` is a number.

    Raises:
        ComposeError: with the value's place and path.
    """
    match node:
        case Mapping():
            entries = {k: interpolate(v, lookup, warn, f"{path}.{k}" if path else k) for k, v in node.entries.items()}
            return replace(node, entries=entries)
        case Sequence():
            items = (interpolate(v, lookup, warn, f"{path}[{i}]") for i, v in enumerate(node.items))
            return replace(node, items=tuple(items))
        case Scalar():
            if "$" not in node.text or not isinstance(node.value, str):
                return node
            try:
                text = substitute(node.text, lookup, warn)
            except BadTemplate as error:
                raise ComposeError(f"{path}: {error}", node.mark) from None
            value = resolve_plain(text) if node.plain and text else text
            return replace(node, value=value, text=text)
