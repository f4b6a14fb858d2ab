"""What verbs print: tables, JSON lines, templates such as ``{{.ID}}``, and sizes and times in people's words."""

from __future__ import annotations

import json
import time

from app.cli.errors import Usage

TYPING = False
if TYPING:
    from collections.abc import Sequence
    from typing import Any

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
SHORT = 12


def short_id(text: str) -> str:
    """The first 12 digits, without ``sha256:``."""
    return text.removeprefix("sha256:")[:SHORT]


def cut(text: str, width: int) -> str:
    """*text*, at most *width* wide, with an ellipsis where something is missing."""
    return text if len(text) <= width else text[:width - 1] + "…"


def size(count: float, *, digits: int = 3, binary: bool = False) -> str:
    """*count* bytes with three significant digits: ``4.43MB`` (``binary``: ``4.227MiB``, four digits)."""
    step, units = (1024.0, _BINARY) if binary else (1000.0, _UNITS)
    number, unit = float(count), 0
    while number >= step and unit < len(units) - 1:
        number, unit = number / step, unit + 1
    return f"{number:.{4 if binary else digits}g}{units[unit]}"


def span(seconds: float) -> str:
    """A length of time as Docker says it: ``About a minute``, ``3 hours``, ``2 weeks``."""
    minutes = int(seconds / 60)
    hours = int(seconds / 3600 + 0.5)
    for limit, text in (
        (seconds < 1, "Less than a second"), (int(seconds) == 1, "1 second"), (seconds < 60, f"{int(seconds)} seconds"),
        (minutes == 1, "About a minute"), (minutes < 60, f"{minutes} minutes"), (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"), (hours < 24 * 7 * 2, f"{hours // 24} days"),
        (hours < 24 * 30 * 2, f"{hours // 24 // 7} weeks"), (hours < 24 * 365 * 2, f"{hours // 24 // 30} months"),
    ):
        if limit:
            return text
    return f"{hours // 24 // 365} years"


def ago(epoch: float) -> str:
    """How long ago *epoch* (seconds) was; ``N/A`` where it is not known."""
    return f"{span(max(time.time() - epoch, 0))} ago" if epoch > 0 else "N/A"


def when(epoch: float, *, rfc: bool = False) -> str:
    """*epoch* in the zone of here: ``2026-11-24 20:43:43 +0000 UTC``, or as RFC 3339."""
    moment = time.localtime(epoch)
    shift = time.strftime("%z", moment)
    if rfc:
        return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + ("Z" if shift == "+0000" else f"{shift[:3]}:{shift[3:]}")
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", moment)


def epoch_of(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time; 0 where there is none (Go's year 1)."""
    if not text or text.startswith("0001-"):
        return 0
    from datetime import datetime

    head, _, tail = text.partition(".")
    zone = tail.lstrip("0123456789") if tail else ""
    return datetime.fromisoformat((head + zone if tail else text).replace("Z", "+00:00")).timestamp()


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], least: int = 10) -> str:
    """Columns as Docker's: three spaces between, *least* wide with them, the last as wide as it is."""
    widths = [max(least, 3 + max(map(len, column))) for column in zip(titles, *rows, strict=True)]
    return "\n".join("".join([*(cell.ljust(width) for cell, width in zip(line[:-1], widths[:-1], strict=True)),
                              line[-1]]) for line in (titles, *rows))


def show(rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, str]], wanted: str) -> None:
    """Prints *rows*.

    Args:
        columns: (title, key) of the default table.
        wanted: "" or ``table``, ``json``, a template, or ``table TEMPLATE``.
    """
    if wanted in ("", "table"):
        print(table([title for title, _ in columns], [[row[key] for _, key in columns] for row in rows]))
    elif wanted == "json":
        for row in rows:
            print(go_json({key: value for key, value in row.items() if not callable(value)}))
    elif wanted.startswith("table "):
        _template_table(rows, columns, wanted.removeprefix("table ").replace("\\t", "\t"))
    else:
        from app.cli.template import fill

        for row in rows:
            print(fill(wanted, row))


def _template_table(rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, str]], template: str) -> None:
    from app.cli.template import fill

    titles = {key: title for title, key in columns}
    head = {key: titles.get(key, key.upper()) for key in (rows[0] if rows else titles)}
    lines = [fill(template, row).split("\t") for row in (head, *rows)]
    print(table(lines[0], lines[1:]))


def labelled(found: dict[str, str] | None) -> dict[str, Any]:
    """What a row says of labels: all of them as text, and ``{{.Label "name"}}`` for templates."""
    labels = found or {}
    return {"Labels": ",".join(f"{key}={value}" for key, value in labels.items()),
            "Label": lambda name: labels.get(name, "")}


def go_json(value: Any) -> str:
    """*value* as Go writes JSON: keys sorted, no spaces, and nothing that HTML would take for its own."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def filters(words: Sequence[str]) -> dict[str, list[str]] | None:
    """``key=value`` words as the API's ``filters``; None for none."""
    out: dict[str, list[str]] = {}
    for word in words:
        key, found, value = word.partition("=")
        if not found:
            raise Usage(f"--filter takes KEY=VALUE, not {word!r}.", 125)
        out.setdefault(key.strip().lower(), []).append(value.strip())
    return out or None
