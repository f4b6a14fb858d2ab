"""The table of volumes. Sizes are counted when somebody asks: the engine has to read every file for them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.models.keyed import Column, KeyedTable
from app.models.rows import PROJECT_LABEL, age_text, size_text, time_text
from backend.spec import api

NAME, USED, SIZE, DRIVER, CREATED, ACTIONS = range(6)
_ANONYMOUS = "com.docker.volume.anonymous"


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """One volume. `created`: seconds since the epoch, 0 when unknown; `anonymous`: made for one container alone."""

    name: str
    driver: str
    created: int
    mountpoint: str
    stack: str
    anonymous: bool
    options: tuple[tuple[str, str], ...]

    @property
    def short(self) -> str:
        """The name as shown: anonymous ones have 64 digits that say nothing."""
        return f"{self.name[:12]}…" if self.anonymous and len(self.name) > 20 else self.name


def volume_row(view: api.Volume) -> VolumeRow:
    """The row of a volume in the engine's list."""
    labels = view.labels or {}
    return VolumeRow(view.name, view.driver, _seconds(str(view.created_at or "")), view.mountpoint,
                     labels.get(PROJECT_LABEL, ""), _ANONYMOUS in labels, tuple(sorted((view.options or {}).items())))


def _seconds(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp()) if text else 0
    except ValueError:
        return 0


class VolumeTable(KeyedTable[VolumeRow]):
    """Volumes by name. `users` and `sizes` are told by the page that shows them."""

    columns = (Column("Name"), Column("Used by"), Column("Size", right=True), Column("Driver"), Column("Created"),
               Column(""))

    def __init__(self) -> None:
        super().__init__()
        self.users: dict[str, tuple[str, ...]] = {}
        self.sizes: dict[str, int] = {}

    def text(self, row: VolumeRow, column: int) -> str:
        if column == NAME:
            return row.short
        if column == USED:
            return ", ".join(self.users.get(row.name, ())) or "–"
        if column == SIZE:
            size = self.sizes.get(row.name, -1)
            return size_text(size) if size >= 0 else "…"
        if column == DRIVER:
            return row.driver
        if column == CREATED and row.created:
            return age_text(row.created, time.time())
        return ""

    def sort_value(self, row: VolumeRow, column: int) -> Any:
        if column == SIZE:
            return self.sizes.get(row.name, -1)
        if column == CREATED:
            return -row.created
        return self.text(row, column).lower()

    def tip(self, row: VolumeRow, column: int) -> str:
        if column == NAME:
            return "\n".join(filter(None, (row.name, row.mountpoint, row.stack and f"stack {row.stack}")))
        if column == CREATED and row.created:
            return time_text(row.created)
        return self.text(row, column)

    def tell_users(self, users: Mapping[str, Sequence[str]]) -> None:
        """Who uses which volume now, by name."""
        fresh = {name: tuple(sorted(found)) for name, found in users.items()}
        changed = {name for name in fresh.keys() | self.users.keys() if fresh.get(name) != self.users.get(name)}
        self.users = fresh
        for name in changed:
            self.touch(name, USED, USED)

    def tell_sizes(self, sizes: Mapping[str, int]) -> None:
        """How large volumes are, in bytes."""
        for name, size in sizes.items():
            if self.sizes.get(name) != size:
                self.sizes[name] = size
                self.touch(name, SIZE, SIZE)
