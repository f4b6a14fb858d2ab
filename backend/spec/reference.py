"""Names of images: ``[registry/]path[:tag][@digest]``, parsed, normalised, and written as people know them.

Grammar: OCI distribution-spec "Pulling manifests" and Docker's reference rules. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from backend.errors import InvalidArgument

HUB = "docker.io"
_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
                   r"|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?", re.ASCII)
_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised name. *tag* and *digest* may be empty; *registry* and *path* never are."""

    registry: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """Registry and path in full: ``docker.io/library/busybox``."""
        return f"{self.registry}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: ``busybox``, ``team/app``, ``localhost:5000/app``."""
        if self.registry != HUB:
            return self.repository
        return self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path

    @property
    def familiar(self) -> str:
        """The whole as people write it, with tag and digest where there are any."""
        return self.familiar_name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        """The same, with ``latest`` where neither tag nor digest is said."""
        return self if self.tag or self.digest else Reference(self.registry, self.path, "latest")


def is_digest(text: str) -> bool:
    """Whether *text* is ``sha256:`` and 64 hex digits."""
    return text.startswith("sha256:") and _HEX.fullmatch(text[7:]) is not None


def parse(text: str) -> Reference:
    """*text* as a :class:`Reference`.

    Raises:
        InvalidArgument: with docker's word for it, ``invalid reference format``.
    """
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise InvalidArgument(f"invalid reference format: {text!r} has no valid sha256 digest after the @")
    head, colon, tail = rest.rpartition(":")
    tag = ""
    if colon and "/" not in tail:
        rest, tag = head, tail
        if not _TAG.fullmatch(tag):
            raise InvalidArgument(f"invalid reference format: {tag!r} is no valid tag")
    first, slash, path = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        registry = HUB if first in _HUB_NAMES else first
    else:
        registry, path = HUB, rest
    if registry == HUB and "/" not in path:
        path = f"library/{path}"
    if not _HOST.fullmatch(registry):
        raise InvalidArgument(f"invalid reference format: {registry!r} is no valid registry name")
    if path.lower() != path:
        raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
    if not path or len(path) > _LONGEST_NAME or not all(_COMPONENT.fullmatch(part) for part in path.split("/")):
        raise InvalidArgument(f"invalid reference format: {text!r}")
    return Reference(registry, path, tag, digest)
