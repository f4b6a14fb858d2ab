"""Typed reading of one mapping of a Compose file: a key that nobody asked for is an error. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import TypeVar

from backend.compose.errors import ComposeError, Mark
from backend.compose.model import Pairs
from backend.compose.nodes import Mapping, Node, Scalar, Sequence, as_text
from backend.compose.values import parse_duration, parse_size

T = TypeVar("T")
_TRUE = ("true", "yes", "on", "y", "1")
_MOST_CPUS = 1_000_000
_FALSE = ("false", "no", "off", "n", "0")


class Section:
    """A mapping that is being read. ``path`` is its place in words (`services.web`); missing and null keys are None.

    After the last key, :meth:`finish` refuses what is left: keys that the specification does not know, and keys that it
    knows and this program does not carry out yet. Nothing is ignored but `x-*`.
    """

    def __init__(self, node: Node, path: str) -> None:
        self.path = path
        self.node = mapping(node, path)
        self.asked: set[str] = set()

    def where(self, key: str) -> Mark:
        return self.node.keys.get(key, self.node.mark)

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def error(self, key: str, message: str) -> ComposeError:
        value = self.node.entries.get(key)
        return ComposeError(f"{self.at(key)}: {message}", value.mark if value else self.node.mark)

    def take(self, key: str) -> Node | None:
        """The value of *key*, or None where it is missing or null."""
        self.asked.add(key)
        value = self.node.entries.get(key)
        return None if isinstance(value, Scalar) and value.value is None else value

    def text(self, key: str, default: str = "") -> str:
        value = self.take(key)
        return default if value is None else scalar_text(value, self.at(key))

    def choice(self, key: str, allowed: tuple[str, ...], default: str = "") -> str:
        value = self.text(key, default)
        if value and value not in allowed:
            raise self.error(key, f"{value!r} is none of {', '.join(allowed)}")
        return value

    def flag(self, key: str) -> bool | None:
        value = self.take(key)
        if value is None:
            return None
        text = scalar_text(value, self.at(key)).lower()
        if text not in _TRUE + _FALSE:
            raise self.error(key, f"{text!r} is neither true nor false")
        return text in _TRUE

    def yes(self, key: str) -> bool:
        return bool(self.flag(key))

    def integer(self, key: str, least: int | None = None) -> int | None:
        value = self.checked(key, self.parsed(key, int, "a whole number"))
        if value is not None and least is not None and value < least:
            raise self.error(key, f"{value} is less than {least}")
        return value

    def billionths(self, key: str) -> int | None:
        """A decimal number, in billionths."""
        value = self.parsed(key, float, "a number")
        if value is not None and not 0 <= value <= _MOST_CPUS:
            raise self.error(key, f"{value} is not between 0 and {_MOST_CPUS}")
        return None if value is None else round(value * 1e9)

    def size(self, key: str) -> int | None:
        """Bytes."""
        return self.checked(key, self.parsed(key, parse_size))

    def duration(self, key: str) -> int | None:
        """Nanoseconds."""
        return self.checked(key, self.parsed(key, parse_duration))

    def checked(self, key: str, value: int | None) -> int | None:
        """*value*, if the Engine API can carry it."""
        if value is not None and not -(2**63) <= value < 2**63:
            raise self.error(key, "the number is too large")
        return value

    def parsed(self, key: str, parser: Callable[[str], T], what: str = "") -> T | None:
        """The value through *parser*, whose ValueError becomes an error with the place (in *what*'s words if given)."""
        value = self.take(key)
        if value is None:
            return None
        text = scalar_text(value, self.at(key))
        try:
            return parser(text)
        except ValueError as error:
            raise self.error(key, f"{text!r} is not {what}" if what else str(error)) from None

    def items(self, key: str) -> Iterator[tuple[str, Node]]:
        """The items of a list, each with its place in words."""
        value = self.take(key)
        if value is None:
            return
        if not isinstance(value, Sequence):
            raise self.error(key, f"expected a list, found {kind(value)}")
        for index, item in enumerate(value.items):
            yield f"{self.at(key)}[{index}]", item

    def strings(self, key: str) -> tuple[str, ...]:
        """A list of strings; one string counts as a list of one."""
        value = self.take(key)
        if isinstance(value, Scalar):
            return (as_text(value.value),)
        return tuple(scalar_text(item, path) for path, item in self.items(key))

    def each(self, key: str, parser: Callable[[str], T]) -> tuple[T, ...]:
        """A list whose items are strings in a small language."""
        return tuple(parse_with(parser, item, path) for path, item in self.items(key))

    def pairs(self, key: str) -> Pairs:
        """A mapping of strings, or a list of KEY=VALUE."""
        return tuple((k, as_text(v)) for k, v in self.raw_pairs(key))

    def raw_pairs(self, key: str) -> Iterator[tuple[str, str | None]]:
        """As :meth:`pairs`, with None for a key without a value."""
        value = self.take(key)
        if isinstance(value, Mapping):
            for name, node in value.entries.items():
                if isinstance(node, Scalar) and node.value is None:
                    yield name, None
                else:
                    yield name, scalar_text(node, f"{self.at(key)}.{name}")
        elif isinstance(value, Sequence):
            for path, item in self.items(key):
                name, separator, text = scalar_text(item, path).partition("=")
                yield name, text if separator else None
        elif value is not None:
            raise self.error(key, f"expected a mapping or a list of KEY=VALUE, found {kind(value)}")

    def section(self, key: str) -> Section | None:
        value = self.take(key)
        return None if value is None else Section(value, self.at(key))

    def sections(self, key: str) -> Iterator[tuple[str, Node]]:
        """The entries of a mapping of things, each name with its value."""
        value = self.take(key)
        if value is not None:
            yield from mapping(value, self.at(key)).entries.items()

    def finish(self, not_yet: frozenset[str] | set[str] = frozenset()) -> None:
        """Refuses the first key, in the file's order, that nobody asked for."""
        for key in self.node.entries:
            if key in self.asked or key.startswith("x-"):
                continue
            if key in not_yet:
                raise ComposeError(f"{self.at(key)} is not supported yet", self.where(key))
            close = difflib.get_close_matches(key, [*self.asked, *not_yet], 1, 0.7)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ComposeError(f"{self.at(key)}: unknown key{hint}", self.where(key))


def kind(node: Node) -> str:
    """What a node is, in the words of an error."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    return "nothing" if node.value is None else f"{node.text!r}"


def mapping(node: Node, path: str) -> Mapping:
    if isinstance(node, Mapping):
        return node
    if isinstance(node, Scalar) and node.value is None:
        return Mapping({}, {}, node.mark)
    raise ComposeError(f"{path}: expected a mapping, found {kind(node)}", node.mark)


def scalar_text(node: Node, path: str) -> str:
    if not isinstance(node, Scalar):
        raise ComposeError(f"{path}: expected a single value, found {kind(node)}", node.mark)
    return as_text(node.value)


def parse_with(parser: Callable[[str], T], node: Node, path: str) -> T:
    text = scalar_text(node, path)
    try:
        return parser(text)
    except ValueError as error:
        raise ComposeError(f"{path}: {error}", node.mark) from None
