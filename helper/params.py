"""What stands in a query string, read as Go reads it."""

from __future__ import annotations

from collections.abc import Mapping

from backend.engine.clock import parse_time
from backend.errors import InvalidArgument

_FALSE = frozenset({"", "no", "false", "none", "0"})
_LARGEST = 1 << 31


def boolean(query: Mapping[str, str], name: str, default: bool = False) -> bool:
    """As moby's own reading: empty, 0, no, false and none are false, all else is true."""
    value = query.get(name)
    return default if value is None else value.strip().lower() not in _FALSE


def integer(query: Mapping[str, str], name: str) -> int | None:
    """A whole number, None where it is not said. Raises :class:`InvalidArgument`."""
    value = query.get(name)
    if value is None or value == "":
        return None
    digits = value.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 10 or int(digits) >= _LARGEST:
        raise InvalidArgument(f"invalid value {value[:40]!r} for {name}: a whole number is expected")
    return int(value)


def moment(query: Mapping[str, str], name: str, now: int) -> int:
    """A time (Unix seconds with or without fraction, RFC 3339, or a duration before *now*) as ns; 0 where not said."""
    value = query.get(name, "")
    return parse_time(value, now) if value and value != "0" else 0


_NAMED = {"[": 27, "\\": 28, "]": 29, "^": 30, "_": 31, "@": 0}


def detach_keys(text: str | None) -> bytes:
    """The bytes of a key sequence such as ``ctrl-p,ctrl-q`` (the default). Raises :class:`InvalidArgument`."""
    out = bytearray()
    for key in (text or "ctrl-p,ctrl-q").split(","):
        if key.startswith("ctrl-") and len(key) == 6:
            letter = key[5].lower()
            if letter.isascii() and letter.isalpha():
                out.append(ord(letter) - 96)
                continue
            if letter in _NAMED:
                out.append(_NAMED[letter])
                continue
        if len(key) == 1 and key.isascii():
            out.append(ord(key))
            continue
        raise InvalidArgument(f"Invalid detach keys ({text}) provided: {key!r} is no key; write them as ctrl-p,ctrl-q")
    return bytes(out)
