"""A look at a container's or image's file system from outside: an overlay mounted nowhere, reached by descriptor only.

Nothing shows on the host and nothing has to be unmounted: the mount is gone when its descriptor is closed. Paths in it
are followed with RESOLVE_IN_ROOT, because they were written by somebody else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from backend.runtime import syscalls as sc

_INSIDE = sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_MAGICLINKS


@contextmanager
def root_of(lower: Sequence[str], upper: str = "") -> Iterator[int]:
    """A descriptor of the root made of *lower* (topmost first) and, read only, of *upper* above them."""
    layers = [upper, *lower] if upper else list(lower)
    # One layer needs no overlay, and the kernel would refuse it.
    single = len(layers) == 1
    fd = os.open(layers[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if single else _overlay(layers)
    try:
        yield fd
    finally:
        os.close(fd)


def _overlay(layers: Sequence[str]) -> int:
    context = sc.fsopen("overlay")
    try:
        for layer in layers:
            sc.fsconfig_string(context, "lowerdir+", layer)
        sc.fsconfig_create(context)
        return sc.fsmount(context)
    finally:
        os.close(context)


def open_inside(root: int, path: str, flags: int) -> int:
    """Open *path* (absolute, as the container sees it) below *root*."""
    return sc.openat2(root, path.lstrip("/") or ".", flags | os.O_CLOEXEC, resolve=_INSIDE)


@contextmanager
def directory_inside(root: int, path: str) -> Iterator[int | None]:
    """A directory of the image, or None where the image has none at *path*."""
    try:
        fd = open_inside(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)
