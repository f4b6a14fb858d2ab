"""What differs from the image, as a tree of paths. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from backend.spec import api

#: The kinds of the API in the words of a layer's changes.
KINDS = {0: "changed", 1: "added", 2: "removed"}


@dataclass(slots=True)
class Node:
    """A name, what became of it ("" = only something below it), and what is below."""

    change: str = ""
    below: dict[str, Node] = field(default_factory=dict)


def tree(changes: Iterable[api.FilesystemChange]) -> Node:
    """All changes below one root. A directory that is "changed" only because something in it is says nothing."""
    root = Node()
    for one in changes:
        node = root
        for part in one.path.strip("/").split("/"):
            node = node.below.setdefault(part, Node())
        node.change = KINDS.get(one.kind, "changed")
    _calm(root)
    return root


def _calm(node: Node) -> None:
    for child in node.below.values():
        _calm(child)
    if node.below and node.change == "changed":
        node.change = ""
