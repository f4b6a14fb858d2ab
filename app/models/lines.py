"""A bounded ring of log lines with an incremental search. No widgets: bytes in, lines out.

Lines have numbers that never change; the oldest fall out when the ring is full. The search looks at each line once,
when it comes, so that following a busy log with a search open costs nothing more.
"""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass

CAPACITY = 100_000
LONGEST = 32_768
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]"
                      r"|[\x00-\x08\x0b-\x1f\x7f]")
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d) ")


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its newline. `stamp` is the engine's time ("" when there is none); stderr is marked."""

    stamp: str
    text: str
    stderr: bool


class LineRing:
    """The last *capacity* lines of a log that carries timestamps (`timestamps=1`)."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.first = 0
        self.received = 0
        self._lines: list[Line] = []
        self._partial: dict[bool, bytes] = {False: b"", True: b""}
        self._pattern: re.Pattern[str] | None = None
        self._matches: list[int] = []

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def end(self) -> int:
        """The number after the last line's."""
        return self.first + len(self._lines)

    def line(self, number: int) -> Line:
        """The line with that number, which must be in the ring."""
        return self._lines[number - self.first]

    def clear(self) -> None:
        """Forget what is there; numbers go on."""
        self.first = self.end
        self._lines.clear()
        self._matches.clear()

    def feed(self, data: bytes, stderr: bool = False) -> int:
        """Take a chunk as it came (lines may be cut anywhere); the number of complete lines that came with it."""
        data = self._partial[stderr] + data
        whole, newline, rest = data.rpartition(b"\n")
        if not newline and len(rest) < LONGEST:
            self._partial[stderr] = rest
            return 0
        if not newline:
            whole, rest = rest, b""
        self._partial[stderr] = rest
        made = [_line(raw, stderr) for raw in whole.decode("utf-8", "replace").split("\n")]
        start = self.end
        self._lines.extend(made)
        self.received += len(made)
        if self._pattern is not None:
            search = self._pattern.search
            self._matches.extend(start + place for place, one in enumerate(made) if search(one.text))
        self._trim()
        return len(made)

    def _trim(self) -> None:
        # A quarter at a time: cutting the list's head for each line would move all the rest each time.
        extra = len(self._lines) - self.capacity
        if extra > self.capacity // 4:
            del self._lines[:extra]
            self.first += extra
            del self._matches[:bisect.bisect_left(self._matches, self.first)]

    # --- search ----------------------------------------------------------------------------------------------------

    def search(self, text: str) -> int:
        """Look for *text*, whatever its case, from now on; the number of lines with it. "" ends the search."""
        self._pattern = re.compile(re.escape(text), re.IGNORECASE) if text else None
        self._matches = []
        if self._pattern is not None:
            search = self._pattern.search
            self._matches = [self.first + place for place, one in enumerate(self._lines) if search(one.text)]
        return len(self._matches)

    @property
    def match_count(self) -> int:
        """How many lines match the search."""
        return len(self._matches)

    def match_place(self, number: int) -> int:
        """The place (from 1) of line *number* among the matches; 0 when it is none."""
        place = bisect.bisect_left(self._matches, number)
        return place + 1 if place < len(self._matches) and self._matches[place] == number else 0

    def next_match(self, number: int, back: bool = False) -> int | None:
        """The nearest matching line after (or before) *number*, going round at the ends; None when nothing matches."""
        if not self._matches:
            return None
        if back:
            return self._matches[bisect.bisect_left(self._matches, number) - 1]
        return self._matches[bisect.bisect_right(self._matches, number) % len(self._matches)]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where the search hits in *text*, to highlight."""
        return [one.span() for one in self._pattern.finditer(text)] if self._pattern is not None else []

    def text(self, first: int, last: int, stamps: bool) -> str:
        """Lines *first* to *last* (both in) as they are saved and copied."""
        lines = self._lines[max(first - self.first, 0):last - self.first + 1]
        return "".join((f"{one.stamp} {one.text}\n" if stamps and one.stamp else f"{one.text}\n") for one in lines)


def _line(raw: str, stderr: bool) -> Line:
    raw = raw[:LONGEST].rstrip("\r")
    stamp = _STAMP.match(raw)
    text = raw[stamp.end():] if stamp else raw
    # What a progress bar overwrote in a terminal is not what it shows last.
    if "\r" in text:
        text = text.rsplit("\r", 1)[1]
    if not text.isprintable():
        text = _ESCAPES.sub("", text).expandtabs(8)
    return Line(stamp.group()[:-1] if stamp else "", text, stderr)
