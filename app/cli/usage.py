"""`slipway system df`: what takes space on the disk."""

from __future__ import annotations

from app.cli.flags import Flag, Parser
from app.cli.http import Engine
from app.cli.output import ago, cut, epoch_of, short_id, show, size, table

TYPING = False
if TYPING:
    from typing import Any

_DF = Parser("system df [FLAGS]", "Show what takes space on the disk.", Flag("verbose", short="v", about="one by one"),
             Flag("format", "text", about="table, json, or a template"), most=0)
_COLUMNS = [("TYPE", "Type"), ("TOTAL", "TotalCount"), ("ACTIVE", "Active"), ("SIZE", "Size"),
            ("RECLAIMABLE", "Reclaimable")]


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    given = _DF.parse(words[1:])
    found = Engine(address).json("GET", "/system/df")
    if given.verbose:
        _verbose(found)
        return 0
    show(summary(found), _COLUMNS, given.format)
    return 0


def summary(found: dict[str, Any]) -> list[dict[str, str]]:
    """A row for each kind."""
    images, containers = found.get("Images") or [], found.get("Containers") or []
    volumes, cache = found.get("Volumes") or [], found.get("BuildCache") or []
    used = [image for image in images if image.get("Containers", 0) > 0]
    total = found.get("LayersSize") or 0
    # A layer that two images share counts once in the total; it cannot be had back while one of them is used.
    kept = sum(image["Size"] - max(image.get("SharedSize", 0), 0) for image in used)
    running = [one for one in containers if one.get("State") in ("running", "paused", "restarting")]
    idle = sum(one.get("SizeRw") or 0 for one in containers if one not in running)
    sizes = [(volume.get("UsageData") or {}) for volume in volumes]
    free = [usage for usage in sizes if not usage.get("RefCount")]
    return [
        _row("Images", len(images), len(used), total, total - kept if used else total),
        _row("Containers", len(containers), len(running), sum(one.get("SizeRw") or 0 for one in containers), idle),
        _row("Local Volumes", len(volumes), len(volumes) - len(free), _sum(sizes), _sum(free)),
        _row("Build Cache", len(cache), sum(1 for one in cache if one.get("InUse")), _sum(cache),
             _sum([one for one in cache if not one.get("InUse")]), percent=False),
    ]


def _sum(found: list[dict[str, Any]]) -> int:
    return sum(max(one.get("Size") or 0, 0) for one in found)


def _row(kind: str, total: int, active: int, taken: int, free: int, *, percent: bool = True) -> dict[str, str]:
    free = max(free, 0)
    share = f" ({free * 100 // taken}%)" if percent and taken > 0 else ""
    return {"Type": kind, "TotalCount": str(total), "Active": str(active), "Size": size(taken),
            "Reclaimable": f"{size(free)}{share}"}


def _verbose(found: dict[str, Any]) -> None:
    from app.cli.images import rows_of

    print("Images space usage:\n")
    images = [(row, image) for image in found.get("Images") or [] for row in rows_of(image, False, False)]
    print(table(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"], [
        [row["Repository"], row["Tag"], row["ID"], row["CreatedSince"], row["Size"],
         size(max(image.get("SharedSize", 0), 0)), size(image["Size"] - max(image.get("SharedSize", 0), 0)),
         row["Containers"]] for row, image in images]))
    print("\nContainers space usage:\n")
    print(table(["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"], [
        [short_id(one["Id"]), one["Image"], f'"{cut(one["Command"], 20)}"',
         str(sum(1 for mount in one.get("Mounts") or [] if mount["Type"] == "volume")), size(one.get("SizeRw") or 0),
         ago(one["Created"]), one["Status"], ",".join(name.lstrip("/") for name in one["Names"])]
        for one in found.get("Containers") or []]))
    print("\nLocal Volumes space usage:\n")
    print(table(["VOLUME NAME", "LINKS", "SIZE"], [
        [one["Name"], str((one.get("UsageData") or {}).get("RefCount", 0)),
         size(max((one.get("UsageData") or {}).get("Size", 0), 0))] for one in found.get("Volumes") or []]))
    cache = found.get("BuildCache") or []
    print(f"\nBuild cache usage: {size(_sum(cache))}\n")
    if cache:
        print(table(["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "USAGE"], [
            [one["ID"][:12], one["Type"], size(one["Size"]), ago(epoch_of(one["CreatedAt"])),
             str(one.get("UsageCount", 0))] for one in cache]))
