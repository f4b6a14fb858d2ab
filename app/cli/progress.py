"""The engine's progress (pull, push, load, import): one line a layer, redrawn on a terminal, told once elsewhere."""

from __future__ import annotations

import os

from app.cli.errors import Failure
from app.cli.output import size

TYPING = False
if TYPING:
    from collections.abc import Iterable
    from typing import Any, TextIO

_BAR = 50


def follow(lines: Iterable[dict[str, Any]], out: TextIO, *, quiet: bool = False, code: int = 1) -> list[Any]:
    """Shows *lines* on *out* until they end; what they carried in ``aux``.

    Raises:
        Failure: an error came in the stream; with *code*.
    """
    aux = []
    board = _Board(out) if out.isatty() else None
    for line in lines:
        if "aux" in line:
            aux.append(line["aux"])
            continue
        error = line.get("error") or (line.get("errorDetail") or {}).get("message")
        if error:
            out.flush()
            raise Failure(f"the engine answered: {error}", code)
        if quiet:
            continue
        if board:
            board.put(line)
        else:
            _tell(line, out)
        out.flush()
    return aux


def _tell(line: dict[str, Any], out: TextIO) -> None:
    """Without a terminal: what is not a step of a bar."""
    if "stream" in line:
        out.write(line["stream"])
    elif not bar(line.get("progressDetail") or {}, 0):
        name = f"{line['id']}: " if line.get("id") else ""
        out.write(f"{name}{line.get('status', '')}\n")


class _Board:
    """Lines by ID, each redrawn where it is."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._at: dict[str, int] = {}

    def put(self, line: dict[str, Any]) -> None:
        if "stream" in line:
            self._out.write(line["stream"])
            return
        name, text = line.get("id") or "", line.get("status", "")
        if not name:
            # A line for all: what is above it stays.
            self._at = {}
            self._out.write(f"{text}\n")
            return
        shown = f"{name}: {text} {bar(line.get('progressDetail') or {}, _width())}".rstrip()
        if name not in self._at:
            self._at[name] = len(self._at)
            self._out.write(f"{shown}\n")
            return
        up = len(self._at) - self._at[name]
        self._out.write(f"\x1b[{up}A\x1b[2K\r{shown}\x1b[{up}B\r")


def _width() -> int:
    try:
        return os.get_terminal_size(2).columns
    except OSError:
        return 80


def bar(detail: dict[str, Any], width: int) -> str:
    """``[====>    ]  1.2MB/3.4MB``; only the numbers where *width* is short; empty where nothing is counted."""
    current, total = detail.get("current") or 0, detail.get("total") or 0
    if current <= 0 and total <= 0:
        return ""
    if total <= 0 or current > total:
        return size(current, digits=4)
    numbers = f"{size(current, digits=4):>8}/{size(total, digits=4)}"
    if width <= 110:
        return numbers
    done = min(current * _BAR // total, _BAR)
    return f"[{'=' * done}{'>' if done < _BAR else ''}{' ' * (_BAR - done - 1)}] {numbers}"
