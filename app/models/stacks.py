"""The table of stacks (Compose projects), seen from their containers' labels."""

from __future__ import annotations

from app.models.keyed import Column, KeyedTable
from app.models.rows import StackRow

STATE, NAME, SERVICES, FILES = range(4)


class StackTable(KeyedTable[StackRow]):
    """Stacks by name."""

    columns = (Column("State"), Column("Name"), Column("Services"), Column("Compose file"))

    def text(self, row: StackRow, column: int) -> str:
        if column == STATE:
            if row.running == row.total:
                return "Running"
            return f"{row.running} of {row.total} running" if row.running else "Stopped"
        if column == NAME:
            return row.name
        if column == SERVICES:
            return ", ".join(row.services)
        return row.config_files
