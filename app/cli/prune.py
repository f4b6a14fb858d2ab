"""`slipway container|image|network|volume|system prune`: asks first, says what went."""

from __future__ import annotations

import sys

from app.cli.errors import Usage
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Engine
from app.cli.output import filters, size

TYPING = False
if TYPING:
    from typing import Any

_FORCE = Flag("force", short="f", about="do not ask")
_FILTER = Flag("filter", "list", about="KEY=VALUE, such as until=24h or label=x")
_KINDS = {
    "containers": Parser("container prune [FLAGS]", "Remove all stopped containers.", _FORCE, _FILTER, most=0),
    "images": Parser("image prune [FLAGS]", "Remove images without a name.", _FORCE, _FILTER,
                     Flag("all", short="a", about="all that no container uses"), most=0),
    "networks": Parser("network prune [FLAGS]", "Remove networks that no container uses.", _FORCE, _FILTER, most=0),
    "volumes": Parser("volume prune [FLAGS]", "Remove anonymous volumes that no container uses.", _FORCE, _FILTER,
                      Flag("all", short="a", about="named ones too"), most=0),
    "system": Parser("system prune [FLAGS]", "Remove what is not used.", _FORCE, _FILTER,
                     Flag("all", short="a", about="all images that no container uses"),
                     Flag("volumes", about="anonymous volumes too"), most=0),
}
_TITLES = {"containers": "Deleted Containers", "images": "Deleted Images", "networks": "Deleted Networks",
           "volumes": "Deleted Volumes"}


def main(words: list[str], address: str) -> int:
    """Runs ``prune KIND ...``."""
    kind = words[1]
    given = _KINDS[kind].parse(words[2:])
    kinds = [kind]
    if kind == "system":
        kinds = ["containers", "networks", *(["volumes"] if given.volumes else []), "images"]
    if not given.force and not _agreed(kinds, given):
        raise Usage("nothing was removed.")
    engine, reclaimed, counted = Engine(address), 0, False
    for one in kinds:
        found = engine.json("POST", f"/{one}/prune", {"filters": _filters(one, given)})
        _tell(one, found)
        counted = counted or "SpaceReclaimed" in found
        reclaimed += found.get("SpaceReclaimed") or 0
    if counted:
        print(f"Total reclaimed space: {size(reclaimed)}")
    return 0


def _filters(kind: str, given: Options) -> dict[str, list[str]] | None:
    wanted = filters(given.filter) or {}
    if kind == "images":
        wanted["dangling"] = ["false" if given.all else "true"]
    if kind == "volumes":
        if "volumes" not in given.given and given.all:
            wanted["all"] = ["true"]
        wanted.pop("until", None)
    return wanted or None


def _agreed(kinds: list[str], given: Options) -> bool:
    what = {
        "containers": "all stopped containers", "networks": "all networks not used by at least one container",
        "images": "all images without at least one container associated to them" if getattr(given, "all", False) else
        "all dangling images",
        "volumes": "all volumes not used by at least one container" if "volumes" not in given.given and
        getattr(given, "all", False) else "anonymous local volumes not used by at least one container",
    }
    print("WARNING! This will remove:")
    for kind in kinds:
        print(f"  - {what[kind]}")
    print("\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _tell(kind: str, found: dict[str, Any]) -> None:
    gone = found.get({"containers": "ContainersDeleted", "images": "ImagesDeleted", "networks": "NetworksDeleted",
                      "volumes": "VolumesDeleted"}[kind]) or []
    if not gone:
        return
    print(f"{_TITLES[kind]}:")
    for item in gone:
        if isinstance(item, dict):
            print(f"deleted: {item['Deleted']}" if item.get("Deleted") else f"untagged: {item['Untagged']}")
        else:
            print(item)
    print()
