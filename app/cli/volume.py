"""`slipway volume`."""

from __future__ import annotations

from app.cli.errors import Usage
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Engine, quote
from app.cli.life import each
from app.cli.network import labels
from app.cli.output import filters, labelled, show, size
from app.cli.units import pair

TYPING = False
if TYPING:
    from typing import Any

_LIST = Parser("volume ls [FLAGS]", "List volumes.", Flag("filter", "list", short="f", about="KEY=VALUE"),
               Flag("quiet", short="q", about="names only"), Flag("format", "text", about="table, json, or a template"),
               most=0)
_CREATE = Parser("volume create [FLAGS] [NAME]", "Make a volume.",
                 Flag("driver", "text", short="d", about="who keeps it", default="local"),
                 Flag("label", "list", about="NAME=VALUE"),
                 Flag("opt", "list", short="o", about="an option of the driver: NAME=VALUE"),
                 Flag("name", "text", about="its name"), most=1)
_REMOVE = Parser("volume rm [FLAGS] VOLUME...", "Remove volumes, with what is in them.",
                 Flag("force", short="f", about="one that is not there is no error"), least=1)
_COLUMNS = [("DRIVER", "Driver"), ("VOLUME NAME", "Name")]


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    verb = words[1] if len(words) > 1 else ""
    engine = Engine(address)
    if verb in ("ls", "list"):
        return _list(_LIST.parse(words[2:]), engine)
    if verb == "create":
        print(engine.json("POST", "/volumes/create", body=volume_body(_CREATE.parse(words[2:])))["Name"])
        return 0
    if verb in ("rm", "remove"):
        given = _REMOVE.parse(words[2:])
        return each(given.words, lambda name: _remove(engine, name, given.force), absent=given.force)
    if verb == "inspect":
        from app.cli.inspect import main as inspect

        return inspect(["inspect", *words[2:]], address, "volume")
    if verb == "prune":
        from app.cli.prune import main as prune

        return prune(["prune", "volumes", *words[2:]], address)
    raise Usage("`slipway volume` has ls, create, rm, inspect, prune; each shows its flags with --help.")


def volume_body(given: Options) -> dict[str, Any]:
    """The body of POST /volumes/create."""
    if given.name and given.words:
        raise Usage("the volume is named twice: by --name and by a word.")
    return {"Name": given.name or (given.words[0] if given.words else ""), "Driver": given.driver,
            "Labels": labels(given.label), "DriverOpts": dict(pair(word, "opt") for word in given.opt)}


def _remove(engine: Engine, name: str, force: bool) -> str:
    engine.json("DELETE", f"/volumes/{quote(name)}", {"force": force})
    return name


def _list(given: Options, engine: Engine) -> int:
    found = engine.json("GET", "/volumes", {"filters": filters(given.filter)})["Volumes"] or []
    found.sort(key=lambda volume: volume["Name"])
    if given.quiet and not given.format:
        for volume in found:
            print(volume["Name"])
        return 0
    show([_row(volume) for volume in found], _COLUMNS, given.format)
    return 0


def _row(volume: dict[str, Any]) -> dict[str, Any]:
    usage = volume.get("UsageData") or {}
    return {
        "Name": volume["Name"], "Driver": volume["Driver"], "Scope": volume["Scope"],
        "Availability": "N/A", "Group": "N/A", "Status": "N/A",  # of clusters, which this engine is none of
        "Mountpoint": volume["Mountpoint"],
        **labelled(volume.get("Labels")),
        "Links": str(usage["RefCount"]) if usage else "N/A", "Size": size(usage["Size"]) if usage else "N/A"}
