"""A project directory that is written in the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backend.compose.load import load_project
from backend.compose.model import Project

Load = Callable[..., Project]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """`load(text, override, ..., env={}, files={name: text})`: the project of these Compose files in a directory `shop`."""
    home = tmp_path / "shop"
    home.mkdir()
    monkeypatch.chdir(home)

    def loading(*texts: str, env: dict[str, str] | None = None, files: dict[str, str] | None = None, **rest: object) -> Project:
        for name, text in (files or {}).items():
            (home / name).write_text(text)
        paths = []
        for index, text in enumerate(texts):
            path = home / ("compose.yaml" if index == 0 else f"more{index}.yaml")
            path.write_text(text)
            paths.append(str(path))
        return load_project(paths, env=env or {}, **rest)  # type: ignore[arg-type]

    return loading
