"""Packaged files (icons, themes, default profiles, the recipe of the built-in image) and their one accessor."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent


def path(name: str) -> Path:
    """Where the packaged file *name* (relative, with slashes) lies on disk."""
    return ROOT / name


def text(name: str) -> str:
    """The packaged text file *name*."""
    return path(name).read_text(encoding="utf-8")


def data(name: str) -> bytes:
    """The packaged file *name*, as bytes."""
    return path(name).read_bytes()
