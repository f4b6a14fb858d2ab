"""`slipway logs`."""

from __future__ import annotations

import sys

from app.cli.flags import Flag, Parser
from app.cli.http import Engine, quote

_LOGS = Parser(
    "logs [FLAGS] CONTAINER", "Show what a container printed.",
    Flag("follow", short="f", about="go on with what comes"),
    Flag("tail", "text", short="n", about="how many of the last lines", default="all"),
    Flag("since", "text", about="from this time on: RFC 3339, seconds, or 10m = ten minutes ago"),
    Flag("until", "text", about="up to this time"),
    Flag("timestamps", short="t", about="with the time of each line"),
    Flag("details", about="with what the log driver adds"), least=1, most=1)


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    given = _LOGS.parse(words[1:])
    answer = Engine(address).ask("GET", f"/containers/{quote(given.words[0])}/logs", {
        "stdout": True, "stderr": True, "follow": given.follow, "tail": given.tail, "since": given.since or None,
        "until": given.until or None, "timestamps": given.timestamps, "details": given.details})
    outputs = {1: sys.stdout.buffer, 2: sys.stderr.buffer}
    last = 0
    for stream, data in answer.frames():
        out = outputs.get(stream, outputs[1])
        if last and stream != last:
            outputs[last].flush()
        last = stream if stream in outputs else 1
        out.write(data)
        if given.follow:
            out.flush()
    sys.stdout.flush()
    return 0
