"""Signals as the API names them. Pure."""

from __future__ import annotations

import signal

from backend.errors import InvalidArgument

_NUMBERS = {one.name: int(one) for one in signal.Signals}
_RT_MIN, _RT_MAX = 34, 64          # as the kernel counts them for programs with glibc


def signal_number(text: str) -> int:
    """The number of "TERM", "SIGTERM", "15" or "RTMIN+3". Raises :class:`InvalidArgument`."""
    word = text.strip().upper()
    if word.isascii() and word.isdigit() and len(word) < 4 and 1 <= int(word) <= _RT_MAX:
        return int(word)
    name = word if word.startswith("SIG") else f"SIG{word}"
    if name in _NUMBERS:
        return _NUMBERS[name]
    for base, start, sign in (("SIGRTMIN", _RT_MIN, 1), ("SIGRTMAX", _RT_MAX, -1)):
        rest = name.removeprefix(base).lstrip("+-")
        if name.startswith(base) and (not rest or (rest.isascii() and rest.isdigit())):
            number = start + sign * int(rest or "0")
            if _RT_MIN <= number <= _RT_MAX:
                return number
    raise InvalidArgument(f"invalid signal: {text}")
