"""Templates of ``--format``: the part of Go's template language that people use with Docker. Pure.

``{{.A.B}}``, ``{{json .A}}``, ``{{index .A "k" 0}}``, ``{{range .A}}…{{else}}…{{end}}``, ``{{range $k, $v := .A}}``,
``{{if}}``, ``{{with}}``, pipes, parentheses, ``eq ne lt gt and or not``,
``len join split lower upper title println printf``.
"""

from __future__ import annotations

import json
import re

from app.cli.errors import Usage

TYPING = False
if TYPING:
    from collections.abc import Callable
    from typing import Any

    Node = tuple[Any, ...]

_ACTION = re.compile(r"(\s*)\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*("(?:\\.|[^"\\])*"|`[^`]*`|[A-Za-z_]\w*|\$\w*(?:\.\w+)*|-?\d+(?:\.\d+)?|(?:\.\w+)+|\.|:=|\)(?:\.\w+)*|[(|,])""")
_PLAIN = re.compile(r"\{\{\s*((?:\.\w+)+)\s*\}\}")


class _Wrong(Exception):
    """The template cannot be used; the text says why."""


def fill(template: str, value: Any) -> str:
    """*template* filled in from *value*.

    Raises:
        Usage: it makes no sense, or names a field that is not there.
    """
    template = template.replace("\\n", "\n").replace("\\t", "\t")
    try:
        tree, ended = _block(_pieces(template))
        if ended:
            raise _Wrong(f"there is an {{{{{ended}}}}} too many")
        return "".join(_render(tree, value, {"$": value}))
    except _Wrong as wrong:
        raise Usage(f"the template {template!r} cannot be used: {wrong}.") from None


def fields(template: str) -> list[str]:
    """The plain fields that a template names, in order: the columns of a table."""
    return [found.lstrip(".") for found in _PLAIN.findall(template)]


# --- reading ---------------------------------------------------------------------------------------------------------

def _pieces(template: str) -> list[tuple[str, str]]:
    """("text", …) and ("do", …), reversed, for popping."""
    out: list[tuple[str, str]] = []
    at, trim = 0, False
    for found in _ACTION.finditer(template):
        text = template[at:found.start()] + ("" if found[2] else found[1])
        out.append(("text", text.lstrip() if trim else text))
        out.append(("do", found[3].strip()))
        at, trim = found.end(), bool(found[4])
    rest = template[at:]
    if "{{" in rest:
        raise _Wrong("a {{ has no }}")
    out.append(("text", rest.lstrip() if trim else rest))
    return out[::-1]


def _block(pieces: list[tuple[str, str]]) -> tuple[list[Node], str]:
    """Nodes up to an ``end`` or ``else``, and which of them it was ("" at the end of all)."""
    out: list[Node] = []
    while pieces:
        kind, text = pieces.pop()
        if kind == "text":
            out.append(("text", text))
            continue
        word, _, rest = text.partition(" ")
        if word in ("end", "else"):
            return out, text
        if word in ("range", "if", "with"):
            out.append(_branch(word, rest, pieces))
        elif not text.startswith("/*"):
            out.append(("put", _pipeline(_tokens(text))))
    return out, ""


def _branch(word: str, rest: str, pieces: list[tuple[str, str]]) -> Node:
    names: list[str] = []
    tokens = _tokens(rest)
    if ":=" in tokens:
        mark = tokens.index(":=")
        names = [one for one in tokens[:mark] if one != ","]
        tokens = tokens[mark + 1:]
    body, ended = _block(pieces)
    other: list[Node] = []
    if ended.startswith("else if "):
        return (word, names, _pipeline(tokens), body, [_branch("if", ended.removeprefix("else if "), pieces)])
    if ended == "else":
        other, ended = _block(pieces)
    if ended != "end":
        raise _Wrong(f"a {{{{{word}}}}} has no {{{{end}}}}")
    return (word, names, _pipeline(tokens), body, other)


def _tokens(text: str) -> list[str]:
    out, at = [], 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if not found:
            raise _Wrong(f"{text[at:].strip()!r} is not understood")
        out.append(found[1])
        at = found.end()
    return out


def _pipeline(tokens: list[str]) -> Node:
    """Commands with ``|`` between: each gets what the one before gave as its last argument."""
    commands: list[list[Any]] = [[]]
    queue = list(tokens)
    while queue:
        word = queue.pop(0)
        if word == "|":
            commands.append([])
        elif word == "(":
            commands[-1].append(_parenthesis(queue))
        else:
            commands[-1].append(word)
    if not all(commands):
        raise _Wrong("an action is empty")
    return ("pipe", commands)


def _parenthesis(queue: list[str]) -> Node:
    depth, inner = 1, list[str]()
    while queue:
        word = queue.pop(0)
        depth += (word == "(") - word.startswith(")")
        if not depth:
            return ("of", _pipeline(inner), word[1:]) if len(word) > 1 else _pipeline(inner)
        inner.append(word)
    raise _Wrong("a ( has no )")


# --- filling in ------------------------------------------------------------------------------------------------------

def _render(nodes: list[Node], dot: Any, names: dict[str, Any]) -> list[str]:
    out: list[str] = []
    for node in nodes:
        if node[0] == "text":
            out.append(node[1])
        elif node[0] == "put":
            out.append(plain(_value(node[1], dot, names)))
        else:
            out += _render_branch(node, dot, names)
    return out


def _render_branch(node: Node, dot: Any, names: dict[str, Any]) -> list[str]:
    word, variables, pipeline, body, other = node
    value = _value(pipeline, dot, names)
    if word == "range":
        pairs = [*sorted(value.items())] if isinstance(value, dict) else [*enumerate(value or [])]
        out: list[str] = []
        for key, one in pairs:
            bound = dict(zip(variables, [key, one] if len(variables) == 2 else [one], strict=False))
            out += _render(body, one, names | bound)
        return out if pairs else _render(other, dot, names)
    if not value:
        return _render(other, dot, names)
    bound = dict.fromkeys(variables, value)
    return _render(body, value if word == "with" else dot, names | bound)


def _value(node: Node, dot: Any, names: dict[str, Any]) -> Any:
    last: list[Any] = []
    for command in node[1]:
        head, *rest = command
        arguments = [_operand(one, dot, names) for one in rest] + last
        if isinstance(head, str) and head in _FUNCTIONS:
            try:
                last = [_FUNCTIONS[head](*arguments)]
            except (TypeError, ValueError, AttributeError):
                raise _Wrong(f"{head} cannot be used like that") from None
        elif not arguments:
            last = [_operand(head, dot, names)]
        elif callable(method := _operand(head, dot, names)):  # {{.Label "name"}}
            last = [method(*arguments)]
        else:
            raise _Wrong(f"{head!r} takes no arguments")
    return last[0]


def _operand(token: Any, dot: Any, names: dict[str, Any]) -> Any:
    if isinstance(token, tuple):
        return _field(_value(token[1], dot, names), token[2]) if token[0] == "of" else _value(token, dot, names)
    if token.startswith("."):
        return _field(dot, token)
    if token[0] == '"':
        return json.loads(token)
    if token[0] == "`":
        return token[1:-1]
    if token[0] == "$":
        name, _, path = token.partition(".")
        if name in names:
            return _field(names[name], path)
    if token in ("true", "false", "nil"):
        return {"true": True, "false": False, "nil": None}[token]
    if token.lstrip("-").replace(".", "", 1).isdigit():
        return float(token) if "." in token else int(token)
    raise _Wrong(f"{token!r} is not known")


def _field(value: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        if value is None:
            return None
        if not isinstance(value, dict) or name not in value:
            raise _Wrong(f"{path} is not there")
        value = value[name]
    return value


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(str(key))
        elif isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        else:
            raise _Wrong(f"there is nothing at {key!r}")
    return value


def _printf(text: str, *values: Any) -> str:
    return re.sub(r"%v", "%s", text) % tuple(plain(v) if not isinstance(v, int | float) else v for v in values)


def _and(*values: Any) -> Any:
    return next((value for value in values if not value), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if value), values[-1])


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")), "index": _index,
    "len": len, "join": lambda value, mark: mark.join(map(plain, value)), "split": lambda text, mark: text.split(mark),
    "lower": lambda text: text.lower(), "upper": lambda text: text.upper(), "title": lambda text: text.title(),
    "truncate": lambda text, width: text[:width], "pad": lambda text, left, right: " " * left + text + " " * right,
    "println": lambda *values: " ".join(map(plain, values)) + "\n",
    "print": lambda *values: "".join(map(plain, values)),
    "printf": _printf, "eq": lambda one, *others: one in others, "ne": lambda one, other: one != other,
    "lt": lambda one, other: one < other, "gt": lambda one, other: one > other, "not": lambda value: not value,
    "and": _and, "or": _or,
}


def plain(value: Any) -> str:
    """*value* as Go's templates print it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + " ".join(map(plain, value)) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{plain(value[key])}" for key in sorted(value)) + "]"
    return str(value)
