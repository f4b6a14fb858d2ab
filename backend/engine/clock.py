"""Times as the wire writes them. Pure: nanoseconds since the epoch in, text out."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from backend.errors import InvalidArgument
from backend.spec.api import ZERO_TIME

SECOND = 1_000_000_000
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?)?)?(Z|z|[+-]\d\d:\d\d)?")
_UNIX = re.compile(r"(\d{1,11})(?:\.(\d{1,9})\d*)?")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}


def rfc3339(at: int) -> str:
    """*at* as RFC 3339 with nanoseconds, trailing zeros dropped as Go does; Go's zero time for 0."""
    if not at:
        return ZERO_TIME
    seconds, rest = divmod(at, SECOND)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09d}".rstrip("0").rstrip(".") + "Z"


def rfc3339_nano(at: int) -> str:
    """*at* as RFC 3339 with all nine digits, so that the lines of a log stand below each other."""
    seconds, rest = divmod(at, SECOND)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest:09d}Z"


def rfc3339_seconds(at: int) -> str:
    """*at* as RFC 3339 without a fraction."""
    return datetime.fromtimestamp(at // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str, now: int) -> int:
    """A `since` or `until`: unix seconds (with fraction), RFC 3339 or its beginning from the day on, or a span
    before *now* ("10m", "1h30m")."""
    if not text:
        return 0
    unix = _UNIX.fullmatch(text)
    if unix:
        return int(unix[1]) * SECOND + int((unix[2] or "0").ljust(9, "0"))
    stamp = _STAMP.fullmatch(text)
    if stamp:
        zone = (stamp[6] or "Z").upper().replace("Z", "+00:00")
        try:
            whole = datetime.fromisoformat(f"{stamp[1]}T{stamp[2] or '00'}:{stamp[3] or '00'}:{stamp[4] or '00'}{zone}")
        except ValueError as error:
            raise InvalidArgument(f"invalid time {text!r}: {error}") from error
        return int(whole.timestamp()) * SECOND + int((stamp[5] or "0").ljust(9, "0"))
    parts = _SPAN.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return now - sum(int(float(number) * _UNITS[unit]) for number, unit in parts)
    raise InvalidArgument(f'failed to parse value as time or duration: "{text}": '
                          "give unix seconds, RFC 3339 or a span such as 10m")


def human(seconds: int) -> str:
    """A duration in the words of Docker's status column."""
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, size, word in ((48, 1, "hours"), (24 * 7 * 2, 24, "days"), (24 * 30 * 2, 24 * 7, "weeks"),
                              (24 * 365 * 2, 24 * 30, "months")):
        if hours < limit:
            return f"{hours // size} {word}"
    return f"{hours // (24 * 365)} years"
