"""The table of images: one row for each name."""

from __future__ import annotations

import time
from typing import Any

from app.models.keyed import Column, KeyedTable
from app.models.rows import ImageRow, age_text, size_text, time_text

NAME, TAG, ID, USED, SIZE, CREATED, ACTIONS = range(7)


class ImageTable(KeyedTable[ImageRow]):
    """Images by ID and name."""

    columns = (Column("Name"), Column("Tag"), Column("ID"), Column("Used by"), Column("Size", right=True),
               Column("Created"), Column(""))

    def text(self, row: ImageRow, column: int) -> str:
        if column == NAME:
            return row.name or "(no name)"
        if column == TAG:
            return row.tag
        if column == ID:
            return row.id.removeprefix("sha256:")[:12]
        if column == USED:
            return ", ".join(row.used_by) or "–"
        if column == SIZE:
            return size_text(row.size)
        if column == CREATED:
            return age_text(row.created, time.time())
        return ""

    def sort_value(self, row: ImageRow, column: int) -> Any:
        if column == SIZE:
            return row.size
        if column == CREATED:
            return -row.created
        return self.text(row, column).lower()

    def tip(self, row: ImageRow, column: int) -> str:
        if column == ID:
            return row.id
        if column == CREATED:
            return time_text(row.created)
        return self.text(row, column)
