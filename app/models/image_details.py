"""What is shown of an image's layers and steps. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from app.models.rows import size_text
from backend.spec.api.layers import LayerEntry

#: The word, the mark and the colour of a change; the mark tells it without the colour.
CHANGES = {"added": ("added", "+", "good"), "changed": ("changed", "~", "warn"), "removed": ("removed", "−", "bad"),
           "": ("", "", "muted")}


def made_by(created_by: str, comment: str = "") -> str:
    """The step that made a layer, as somebody would write it."""
    said = created_by.removeprefix("/bin/sh -c #(nop) ").removeprefix("/bin/sh -c ").strip()
    said = said.removesuffix("# buildkit").strip()
    if said and created_by.startswith("/bin/sh -c") and not created_by.startswith("/bin/sh -c #(nop)"):
        said = f"RUN {said}"
    return said or comment or "no step was noted"


def entry_about(entry: LayerEntry) -> str:
    """Size, or where a link leads."""
    if entry.kind == "link":
        return f"→ {entry.target}" if entry.target else "link"
    return size_text(entry.size) if entry.kind == "file" else "" if entry.kind == "directory" else entry.kind


def entry_tip(entry: LayerEntry) -> str:
    """Who may do what with it, in full."""
    return f"{entry.name}\n{entry.kind}, mode {entry.mode:04o}, owner {entry.uid}:{entry.gid}"


@dataclass(frozen=True, slots=True)
class Freed:
    """What the removal of an image would free: bytes that no other image shares."""

    image: str
    own: int
