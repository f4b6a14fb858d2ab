"""A Compose file as a tree in which every node knows its place. Pure.

PyYAML's own constructors lose the places and let a later key replace an equal earlier one; both would make errors
lie. So the tree is built from parser events. Scalars follow the YAML 1.2 core rules, as docker compose has them: `yes`
and `on` are strings, `22:22` is no number in base 60.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import yaml

from backend.compose.errors import ComposeError, Mark

MAX_DEPTH = 64
MAX_NODES = 200_000     # after aliases have been expanded: a "billion laughs" file stops here
MAX_TEXT = 8 << 20      # characters

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value; ``text`` is what the file says, ``plain`` whether it stood there without quotes."""

    value: Value
    text: str
    plain: bool
    mark: Mark
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]
    mark: Mark
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys in the file's order. ``keys`` has the place of each key."""

    entries: dict[str, Node]
    keys: dict[str, Mark]
    mark: Mark
    tag: str = ""

    def without(self, key: str) -> Mapping:
        return replace(self, entries={k: v for k, v in self.entries.items() if k != key})


Node = Scalar | Sequence | Mapping

_INT = re.compile(r"[-+]?[0-9][0-9_]*\Z")
_BASED = re.compile(r"[-+]?0(x[0-9a-fA-F_]+|o[0-7_]+|b[01_]+)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Value] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}
_LONGEST_NUMBER = 64
_STANDARD = "tag:yaml.org,2002:"


def resolve_plain(text: str) -> Value:
    """The typed value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _LONGEST_NUMBER:
        return text     # Python refuses to turn thousands of digits into a number
    if _INT.match(text):
        digits = text.replace("_", "")
        unsigned = digits.lstrip("+-")
        # A leading zero still means octal, as in YAML 1.1 and in docker compose.
        octal = len(unsigned) > 1 and unsigned.startswith("0") and set(unsigned) <= set("01234567")
        return int(digits, 8) if octal else int(digits)
    if _BASED.match(text):
        return int(text.replace("_", ""), 0)
    if _FLOAT.match(text):
        return float(text)
    return text


def as_text(value: Value) -> str:
    """A value where Compose wants a string, as docker compose writes it: `true`, `1.5`, `1000` for 1e3, `1e+21`."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _float_text(value) if isinstance(value, float) else str(value)


def _float_text(value: float) -> str:
    """The shortest digits that mean *value*, with an exponent from six digits before the point on (Go's %g)."""
    number = Decimal(repr(value)).normalize()
    exponent = number.adjusted()
    if value and not -4 <= exponent < 6:
        digits = "".join(map(str, number.as_tuple().digits))
        mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
        return f"{'-' if value < 0 else ''}{mantissa}e{exponent:+03d}"
    return f"{number:f}"


@dataclass(slots=True)
class _Frame:
    """A collection that is still open while its events arrive."""

    start: Any
    mark: Mark
    anchor: str | None
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Mark] = field(default_factory=dict)
    key: str | None = None
    merged: list[Node] = field(default_factory=list)

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.start, yaml.MappingStartEvent)


class _Builder:
    def __init__(self, file: str) -> None:
        self.file = file
        self.stack: list[_Frame] = []
        self.anchors: dict[str, Node] = {}
        self.sizes: dict[int, int] = {}
        self.count = 0
        self.root: Node | None = None
        self.documents = 0

    def mark(self, event: Any) -> Mark:
        return Mark(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def feed(self, event: Any) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise ComposeError("a second YAML document; a Compose file has one", self.mark(event))
            case yaml.ScalarEvent():
                self.scalar(event)
            case yaml.AliasEvent():
                self.alias(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                if len(self.stack) >= MAX_DEPTH:
                    raise ComposeError(f"nested deeper than {MAX_DEPTH} levels", self.mark(event))
                self.stack.append(_Frame(event, self.mark(event), event.anchor))
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self.close(self.stack.pop())

    def scalar(self, event: Any) -> None:
        mark = self.mark(event)
        frame = self.stack[-1] if self.stack else None
        if frame and frame.is_mapping and frame.key is None:
            self.open_key(frame, event.value, mark, plain=event.style is None)
            return
        self.add(_typed(event, mark), event.anchor, 1)

    def open_key(self, frame: _Frame, key: str, mark: Mark, *, plain: bool) -> None:
        if not (plain and key == "<<"):
            if key in frame.keys:
                raise ComposeError(f"the key {key!r} is there already, in line {frame.keys[key].line}", mark)
            frame.keys[key] = mark
            frame.key = key
        else:
            frame.key = "\0merge"

    def alias(self, event: Any) -> None:
        mark = self.mark(event)
        if self.stack and self.stack[-1].is_mapping and self.stack[-1].key is None:
            raise ComposeError("an alias cannot be a key", mark)
        node = self.anchors.get(event.anchor)
        if node is None:
            inside = any(f.anchor == event.anchor for f in self.stack)
            why = "contains itself" if inside else "is not defined before its use"
            raise ComposeError(f"the alias *{event.anchor} {why}", mark)
        self.add(node, None, self.sizes[id(node)])

    def close(self, frame: _Frame) -> None:
        tag = _local_tag(frame.start.tag, frame.mark)
        node: Node
        if frame.is_mapping:
            entries, keys = frame.entries, frame.keys
            if frame.merged:
                entries, keys = _with_merged(frame)
            node = Mapping(entries, keys, frame.mark, tag)
            size = 1 + sum(self.sizes[id(n)] for n in entries.values())
        else:
            node = Sequence(tuple(frame.items), frame.mark, tag)
            size = 1 + sum(self.sizes[id(n)] for n in frame.items)
        self.add(node, frame.anchor, size)

    def add(self, node: Node, anchor: str | None, size: int) -> None:
        self.sizes[id(node)] = size
        if size > MAX_NODES:
            raise ComposeError(f"aliases expand to more than {MAX_NODES} values", node.mark)
        if anchor:
            self.anchors[anchor] = node
        if not self.stack:
            self.root = node
            return
        frame = self.stack[-1]
        if not frame.is_mapping:
            frame.items.append(node)
        elif frame.key is None:
            raise ComposeError("a key must be a string", node.mark)
        else:
            if frame.key == "\0merge":
                frame.merged.append(node)
            else:
                frame.entries[frame.key] = node
            frame.key = None


def _typed(event: Any, mark: Mark) -> Scalar:
    text, plain = event.value, event.style is None
    tag = event.tag or ""
    if tag.startswith(_STANDARD):
        kind = tag.removeprefix(_STANDARD)
        value = text if kind in ("str", "binary") else resolve_plain(text)
        if kind not in ("str", "int", "float", "bool", "null"):
            raise ComposeError(f"the tag !!{kind} is not supported", mark)
        return Scalar(value, text, kind != "str", mark)
    value = resolve_plain(text) if plain else text
    return Scalar(value, text, plain, mark, _local_tag(tag, mark))


def _local_tag(tag: str | None, mark: Mark) -> str:
    if not tag or tag in ("!", _STANDARD + "map", _STANDARD + "seq"):
        return ""
    if tag not in ("!reset", "!override"):
        raise ComposeError(f"the tag {tag} is not supported", mark)
    return tag


def _with_merged(frame: _Frame) -> tuple[dict[str, Node], dict[str, Mark]]:
    """The entries of `<<`: what the mapping says itself wins, then the first of the merged mappings."""
    entries, keys = dict(frame.entries), dict(frame.keys)
    for node in frame.merged:
        for source in node.items if isinstance(node, Sequence) else (node,):
            if not isinstance(source, Mapping):
                raise ComposeError("`<<` takes a mapping or a list of mappings", source.mark)
            for key, value in source.entries.items():
                if key not in entries:
                    entries[key] = value
                    keys[key] = source.keys[key]
    return entries, keys


def parse(text: str, file: str) -> Mapping:
    """The tree of a Compose file's *text*; ``file`` is the name that errors show. An empty file is an empty mapping."""
    if len(text) > MAX_TEXT:
        raise ComposeError(f"larger than {MAX_TEXT >> 20} MiB", Mark(file, 0, 0))
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.feed(event)
    except yaml.YAMLError as error:
        raise _syntax_error(error, file) from None
    root = builder.root
    if root is None or (isinstance(root, Scalar) and root.value is None):
        return Mapping({}, {}, Mark(file, 1, 1))
    if not isinstance(root, Mapping):
        raise ComposeError("a Compose file is a mapping at the top (services: ...)", root.mark)
    return root


def _syntax_error(error: yaml.YAMLError, file: str) -> ComposeError:
    if isinstance(error, yaml.MarkedYAMLError):
        place = error.problem_mark or error.context_mark
        text = ", ".join(t for t in (error.context, error.problem) if t)
        hint = "; YAML indents with spaces, never tabs" if "\\t" in text else ""
        return ComposeError(text + hint, Mark(file, place.line + 1, place.column + 1) if place else Mark(file, 0, 0))
    return ComposeError(f"not readable as YAML: {error}", Mark(file, 0, 0))
