"""The table of networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.models.keyed import Column, KeyedTable
from app.models.rows import PROJECT_LABEL
from backend.spec import api

NAME, DRIVER, SUBNETS, KIND, ACTIONS = range(5)
#: Networks that every engine has and that cannot be removed.
BUILT_IN = frozenset({"bridge", "host", "none"})


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """One network. `subnets` as CIDR; `stack`: the Compose project that made it, or ""."""

    id: str
    name: str
    driver: str
    subnets: tuple[str, ...]
    gateways: tuple[str, ...]
    internal: bool
    stack: str

    @property
    def built_in(self) -> bool:
        """It belongs to the engine."""
        return self.name in BUILT_IN

    @property
    def takes_more(self) -> bool:
        """Whether a container can be connected to it while it runs."""
        return self.driver not in ("host", "null")


def network_row(view: api.Network) -> NetworkRow:
    """The row of a network in the engine's list."""
    ranges = view.ipam.config
    return NetworkRow(view.id, view.name, view.driver, tuple(str(one.subnet) for one in ranges if one.subnet),
                      tuple(str(one.gateway) for one in ranges if one.gateway), view.internal,
                      view.labels.get(PROJECT_LABEL, ""))


class NetworkTable(KeyedTable[NetworkRow]):
    """Networks by ID."""

    columns = (Column("Name"), Column("Driver"), Column("Addresses"), Column("Kind"), Column(""))

    def text(self, row: NetworkRow, column: int) -> str:
        if column == NAME:
            return row.name
        if column == DRIVER:
            return row.driver
        if column == SUBNETS:
            return ", ".join(row.subnets) or "–"
        if column == KIND:
            return kind_text(row)
        return ""

    def sort_value(self, row: NetworkRow, column: int) -> Any:
        return (self.text(row, column) or "").lower()

    def tip(self, row: NetworkRow, column: int) -> str:
        if column == NAME:
            return f"{row.name}\n{row.id[:12]}"
        return self.text(row, column)


def kind_text(row: NetworkRow) -> str:
    """What is particular about a network, in a few words."""
    parts = ["built in"] if row.built_in else []
    if row.internal:
        parts.append("internal: no way out")
    if row.stack:
        parts.append(f"stack {row.stack}")
    return ", ".join(parts)
