"""`slipway top` and `slipway stats`."""

from __future__ import annotations

import sys
import time

from app.cli.errors import Refused
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Engine, quote
from app.cli.output import show, size, table

TYPING = False
if TYPING:
    from typing import Any

_TOP = Parser("top CONTAINER [PS OPTION...]", "Show the processes of a container.", intermixed=False, least=1)
_STATS = Parser(
    "stats [FLAGS] [CONTAINER...]", "Show what containers use, again and again.",
    Flag("all", short="a", about="stopped ones too"), Flag("no-stream", about="once"),
    Flag("no-trunc", about="whole IDs"), Flag("format", "text", about="table, json, or a template"))
_COLUMNS = [("CONTAINER ID", "ID"), ("NAME", "Name"), ("CPU %", "CPUPerc"), ("MEM USAGE / LIMIT", "MemUsage"),
            ("MEM %", "MemPerc"), ("NET I/O", "NetIO"), ("BLOCK I/O", "BlockIO"), ("PIDS", "PIDs")]
_CLEAR = "\x1b[H\x1b[2J"


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    if words[0] == "top":
        return _top(_TOP.parse(words[1:]), Engine(address))
    return _stats(_STATS.parse(words[1:]), Engine(address))


def _top(given: Options, engine: Engine) -> int:
    name, *arguments = given.words
    found = engine.json("GET", f"/containers/{quote(name)}/top", {"ps_args": " ".join(arguments) or None})
    print(table(found["Titles"], found["Processes"] or [], 20))
    return 0


def _stats(given: Options, engine: Engine) -> int:
    before: dict[str, Any] = {}
    screen = sys.stdout.isatty() and not given.no_stream
    first = True
    while True:
        now = _samples(given, engine, named=first)
        if not first:
            rows = [_row(one, before.get(key, one), given) for key, one in now.items()]
            if screen:
                sys.stdout.write(_CLEAR)
            show(rows, _COLUMNS, given.format)
            sys.stdout.flush()
            if given.no_stream:
                return 0
        before, first = now, False
        # CPU use is a difference, so there is nothing to show before a second sample.
        time.sleep(1)


def _samples(given: Options, engine: Engine, *, named: bool) -> dict[str, dict[str, Any]]:
    """ID -> sample. *named*: a container that is named and not there is an error; later it has just gone."""
    refs = given.words or [one["Id"] for one in engine.json("GET", "/containers/json", {"all": given.all})]
    out = {}
    for ref in refs:
        try:
            one = engine.json("GET", f"/containers/{quote(ref)}/stats", {"stream": False, "one-shot": True})
        except Refused as refused:
            if refused.status != 404 or (named and given.words):
                raise
            continue
        out[one["id"]] = one
    return out


def _row(one: dict[str, Any], before: dict[str, Any], given: Options) -> dict[str, str]:
    memory = one.get("memory_stats") or {}
    counters = memory.get("stats") or {}
    used = memory.get("usage", 0)
    # What the kernel would give back first is no use of memory; cgroup v1 and v2 name it differently.
    cached = counters.get("total_inactive_file", counters.get("inactive_file", 0))
    used -= cached if cached < used else 0
    limit = memory.get("limit", 0)
    networks = (one.get("networks") or {}).values()
    blocks = (one.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    read, written = (sum(entry["value"] for entry in blocks if entry["op"].lower() == op) for op in ("read", "write"))
    received, sent = (sum(network[f"{way}_bytes"] for network in networks) for way in ("rx", "tx"))
    identity = one["id"] if given.no_trunc else one["id"][:12]
    return {
        "ID": identity, "Container": identity, "Name": one["name"].lstrip("/"),
        "CPUPerc": f"{_cpu(one.get('cpu_stats') or {}, before.get('cpu_stats') or {}):.2f}%",
        "MemUsage": f"{size(used, binary=True)} / {size(limit, binary=True)}",
        "MemPerc": f"{used / limit * 100 if limit else 0:.2f}%", "NetIO": f"{size(received)} / {size(sent)}",
        "BlockIO": f"{size(read)} / {size(written)}",
        "PIDs": str((one.get("pids_stats") or {}).get("current", 0)),
    }


def _cpu(now: dict[str, Any], before: dict[str, Any]) -> float:
    """Percent of one CPU between two samples."""
    used = _counter(now, "cpu_usage", "total_usage") - _counter(before, "cpu_usage", "total_usage")
    total = _counter(now, "system_cpu_usage") - _counter(before, "system_cpu_usage")
    return used / total * (now.get("online_cpus") or 1) * 100 if total > 0 and used > 0 else 0.0


def _counter(found: dict[str, Any], *path: str) -> int:
    value: Any = found
    for key in path:
        value = value.get(key) or {}
    return value if isinstance(value, int) else 0
