"""What takes room, as parts of one picture. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.spec import api


@dataclass(frozen=True, slots=True)
class Part:
    """A thing on the disk. `kind`: image, shared, container, volume or cache; `free`: nothing needs it; bytes."""

    kind: str
    name: str
    size: int
    free: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """A part's place in a picture: left, top, width, height."""

    part: Part
    area: tuple[float, float, float, float]


#: The kinds in the order of the picture, and their words.
KINDS = (("image", "Images"), ("shared", "Shared by images"), ("container", "Containers"), ("volume", "Volumes"),
         ("cache", "Build cache"))


def parts(usage: api.DiskUsage) -> list[Part]:
    """Everything that takes room. What several images share counts once, as a part of its own."""
    found: list[Part] = []
    own_sum = 0
    for image in usage.images:
        own = max(image.size - max(image.shared_size, 0), 0)
        own_sum += own
        name = next((tag for tag in image.repo_tags if not tag.startswith("<none>")), image.id[7:19])
        found.append(Part("image", name, own, image.containers == 0))
    found.append(Part("shared", "layers that several images share", max(usage.layers_size - own_sum, 0)))
    for one in usage.containers:
        written = one.size_rw if isinstance(one.size_rw, int) else 0
        found.append(Part("container", one.names[0].lstrip("/") if one.names else one.id[:12], written,
                          one.state in ("exited", "dead")))
    for volume in usage.volumes:
        data = volume.usage_data
        if isinstance(data, api.UsageData) and data.size > 0:
            found.append(Part("volume", volume.name, data.size, data.ref_count == 0))
    found += [Part("cache", item.description or item.id[:12], item.size, not item.in_use)
              for item in usage.build_cache]
    return [one for one in found if one.size > 0]


def totals(found: Sequence[Part]) -> dict[str, tuple[int, int]]:
    """Bytes of each kind, and how many of them nobody needs."""
    sums: dict[str, tuple[int, int]] = {}
    for one in found:
        size, free = sums.get(one.kind, (0, 0))
        sums[one.kind] = (size + one.size, free + (one.size if one.free else 0))
    return sums


def tiles(found: Sequence[Part], width: float, height: float) -> list[Tile]:
    """A picture in which areas are sizes and tiles are as square as can be (squarified treemap of Bruls and others)."""
    rest = sorted((one for one in found if one.size > 0), key=lambda one: -one.size)
    total = sum(one.size for one in rest)
    if not total or width <= 0 or height <= 0:
        return []
    scale = width * height / total
    left, top, out = 0.0, 0.0, list[Tile]()
    while rest:
        side = min(width, height)
        row = [rest[0]]
        while len(row) < len(rest) and _worst([*row, rest[len(row)]], side, scale) <= _worst(row, side, scale):
            row.append(rest[len(row)])
        rest = rest[len(row):]
        depth = sum(one.size for one in row) * scale / side if side else 0.0
        out += _strip(row, (left, top, width, height), depth, scale)
        if width >= height:
            left, width = left + depth, max(width - depth, 0.0)
        else:
            top, height = top + depth, max(height - depth, 0.0)
        if min(width, height) <= 0.01:
            break
    return out


def _worst(row: Sequence[Part], side: float, scale: float) -> float:
    """The most stretched tile of a row along *side*."""
    areas = [one.size * scale for one in row]
    depth = sum(areas) / side
    return max(max(depth * depth / area, area / (depth * depth)) for area in areas)


def _strip(row: Sequence[Part], room: tuple[float, float, float, float], depth: float, scale: float) -> list[Tile]:
    left, top, width, height = room
    out, at = [], top if width >= height else left
    for one in row:
        length = one.size * scale / depth if depth else 0.0
        area = (left, at, depth, length) if width >= height else (at, top, length, depth)
        out.append(Tile(one, area))
        at += length
    return out
