"""The `filters` parameter of the Engine API's lists, prunes and events. Pure.

Clients write it in two forms: `{"label": ["a", "b"]}` (today's) and `{"label": {"a": true}}` (old clients).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from backend.errors import InvalidArgument

_PLAIN = re.compile(r"[\w./:@ +-]*")
#: A pattern longer than this is refused: Python's matcher can be made to run for ever, and the list runs in the loop.
_LONGEST_PATTERN = 256
_NESTED_REPEAT = re.compile(r"[*+}]\)*[*+{]|\([^)]*[*+][^)]*\)[*+{]")


@dataclass(frozen=True, slots=True)
class Filters:
    """Wanted values by key. A value list is an "or", several keys are an "and", several labels are an "and"."""

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None, allowed: Collection[str] | None = None) -> Filters:
        """The filters of a query string. Raises :class:`InvalidArgument` for bad JSON and for keys not in *allowed*."""
        if not text:
            return cls()
        try:
            raw = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"invalid filter: {error}") from error
        if raw is None:
            return cls()
        if not isinstance(raw, dict):
            raise InvalidArgument("invalid filter: a JSON object of lists is expected")
        made = cls({key: _strings(key, value) for key, value in raw.items()})
        if allowed is not None:
            made.check(allowed)
        return made

    def check(self, allowed: Collection[str]) -> None:
        """Raise :class:`InvalidArgument` when a key is not one of *allowed*."""
        for key in self.values:
            if key not in allowed:
                raise InvalidArgument(f"invalid filter '{key}'")

    def __bool__(self) -> bool:
        return bool(self.values)

    def __contains__(self, key: str) -> bool:
        return bool(self.values.get(key))

    def get(self, key: str) -> tuple[str, ...]:
        """The values wanted for *key*; empty when it is not filtered."""
        return self.values.get(key, ())

    def flag(self, key: str) -> bool | None:
        """A filter that is true or false, None when it is not there. Raises :class:`InvalidArgument`."""
        wanted = self.get(key)
        if not wanted:
            return None
        meanings = {_BOOLS.get(one) for one in wanted}
        if None in meanings or len(meanings) != 1:
            raise InvalidArgument(f"invalid filter '{key}=[{' '.join(wanted)}]'")
        return meanings.pop()

    def exact(self, key: str, value: str) -> bool:
        """Whether *value* is one of those wanted, or *key* is not filtered."""
        wanted = self.values.get(key)
        return not wanted or value in wanted

    def any_of(self, key: str, values: Collection[str]) -> bool:
        """Whether one of *values* is wanted, or *key* is not filtered."""
        wanted = self.values.get(key)
        return not wanted or any(one in values for one in wanted)

    def fuzzy(self, key: str, *values: str) -> bool:
        """Whether one of *values* contains or matches (as a pattern) what is wanted, or *key* is not filtered."""
        wanted = self.values.get(key)
        return not wanted or any(_matches(pattern, value) for pattern in wanted for value in values)

    def labels(self, labels: Mapping[str, str] | None, key: str = "label") -> bool:
        """Whether *labels* have all that is wanted, each `key` or `key=value`."""
        have = labels or {}
        return all(_has_label(have, one) for one in self.values.get(key, ()))

    def no_labels(self, labels: Mapping[str, str] | None) -> bool:
        """Whether *labels* have none of the `label!` filter of prunes."""
        have = labels or {}
        return not any(_has_label(have, one) for one in self.values.get("label!", ()))


_BOOLS = {"1": True, "true": True, "True": True, "t": True, "T": True, "TRUE": True,
          "0": False, "false": False, "False": False, "f": False, "F": False, "FALSE": False}


def _strings(key: str, value: object) -> tuple[str, ...]:
    items: list[object]
    if isinstance(value, dict):
        items = [name for name, on in value.items() if on]
    elif isinstance(value, list):
        items = value
    elif isinstance(value, str):
        items = [value]
    elif value is None:
        items = []
    else:
        raise InvalidArgument(f"invalid filter '{key}': a list of strings is expected")
    if not all(isinstance(one, str) for one in items):
        raise InvalidArgument(f"invalid filter '{key}': a list of strings is expected")
    return tuple(str(one) for one in items)


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, found, value = wanted.partition("=")
    return name in labels and (not found or labels[name] == value)


def _matches(pattern: str, value: str) -> bool:
    if pattern == value or (_PLAIN.fullmatch(pattern) and "." not in pattern and "+" not in pattern):
        return pattern in value
    if len(pattern) > _LONGEST_PATTERN or _NESTED_REPEAT.search(pattern):
        raise InvalidArgument(f"invalid filter: the pattern {pattern[:40]!r} is too complicated")
    try:
        return re.search(pattern, value) is not None
    except re.error as error:
        raise InvalidArgument(f"invalid filter: {pattern!r} is not a pattern: {error}") from error
