"""Quantities as people write them on a command line: ``64m``, ``1.5h``, ``0.5`` CPUs. Pure."""

from __future__ import annotations

import re

from app.cli.errors import Usage

_BYTES = re.compile(r"(-?\d+(?:\.\d+)?) ?([kmgtp]?)(i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9,
                "h": 3600 * 10**9}


def size_in_bytes(text: str, flag: str) -> int:
    """``512``, ``64m``, ``1.5GiB``: bytes, in steps of 1024."""
    found = _BYTES.fullmatch(text.strip())
    if not found:
        raise Usage(f"--{flag} takes a size such as 512k, 64m or 2g, not {text!r}.", 125)
    return int(float(found[1]) * 1024 ** _POWERS[found[2].lower()])


def duration(text: str, flag: str) -> int:
    """``1m30s``, ``500ms``: nanoseconds."""
    at, total = 0, 0.0
    body = text.strip()
    while at < len(body):
        found = _DURATION.match(body, at)
        if not found:
            break
        total += float(found[1]) * _NANOSECONDS[found[2]]
        at = found.end()
    if body == "0":
        return 0
    if not body or at < len(body):
        raise Usage(f"--{flag} takes a length of time such as 500ms, 30s or 1m30s, not {text!r}.", 125)
    return round(total)


def nano_cpus(text: str) -> int:
    """CPUs (``1.5``) as billionths."""
    if not re.fullmatch(r"\d+(\.\d{1,9})?|\.\d{1,9}", text):
        raise Usage(f"--cpus takes a number such as 0.5 or 2, not {text!r}.", 125)
    whole, _, fraction = text.partition(".")
    return int(whole or 0) * 10**9 + int(fraction.ljust(9, "0")[:9] or 0)


def pair(text: str, flag: str, mark: str = "=") -> tuple[str, str]:
    """``KEY=VALUE``, both there."""
    key, found, value = text.partition(mark)
    if not found or not key:
        raise Usage(f"--{flag} takes KEY{mark}VALUE, not {text!r}.", 125)
    return key, value
