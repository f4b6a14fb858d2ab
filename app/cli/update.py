"""`slipway update`: limits and the restart policy of containers that are there."""

from __future__ import annotations

import sys

from app.cli.createbody import restart_policy
from app.cli.errors import Usage
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Engine, quote
from app.cli.life import each
from app.cli.units import nano_cpus, size_in_bytes

TYPING = False
if TYPING:
    from typing import Any

#: flag -> (the API's name of it, how it is read)
_SIZES = {"memory": "Memory", "memory-reservation": "MemoryReservation", "memory-swap": "MemorySwap"}
_NUMBERS = {
    "cpu-shares": "CpuShares", "cpu-period": "CpuPeriod", "cpu-quota": "CpuQuota", "blkio-weight": "BlkioWeight",
    "cpu-rt-period": "CpuRealtimePeriod", "cpu-rt-runtime": "CpuRealtimeRuntime", "pids-limit": "PidsLimit",
}
_TEXTS = {"cpuset-cpus": "CpusetCpus", "cpuset-mems": "CpusetMems"}
_SHORT = {"memory": "m", "cpu-shares": "c"}
_UPDATE = Parser(
    "update [FLAGS] CONTAINER...", "Change the limits and the restart policy of containers.",
    *(Flag(name, "text", short=_SHORT.get(name, ""), about="as of run") for name in (*_SIZES, *_TEXTS)),
    *(Flag(name, "number", short=_SHORT.get(name, ""), about="as of run") for name in _NUMBERS),
    Flag("cpus", "text", about="how many CPUs, such as 1.5"),
    Flag("restart", "text", about="no, always, unless-stopped or on-failure[:TIMES]"), least=1)


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    given = _UPDATE.parse(words[1:])
    if not given.given:
        raise Usage("there is nothing to change: name one flag or more. `slipway update --help` lists them.")
    engine, body, warnings = Engine(address), update_body(given), list[str]()

    def update(name: str) -> str:
        warnings.extend(engine.json("POST", f"/containers/{quote(name)}/update", body=body).get("Warnings") or [])
        return name

    status = each(given.words, update)
    for warning in warnings:
        print(f"WARNING: {warning}", file=sys.stderr)
    return status


def update_body(given: Options) -> dict[str, Any]:
    """The body of POST /containers/{id}/update: only what was said."""
    body: dict[str, Any] = {}
    for names, read in ((_SIZES, _size), (_NUMBERS, _same), (_TEXTS, _same)):
        for flag, key in names.items():
            if flag.replace("-", "_") in given.given:
                body[key] = read(getattr(given, flag.replace("-", "_")), flag)
    if given.cpus:
        body["NanoCpus"] = nano_cpus(given.cpus)
    if given.restart:
        body["RestartPolicy"] = restart_policy(given.restart)
    return body


def _size(text: str, flag: str) -> int:
    return -1 if flag == "memory-swap" and text == "-1" else size_in_bytes(text, flag)


def _same(value: Any, _flag: str) -> Any:
    return value
