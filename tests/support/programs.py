"""Our programs as others find them on the PATH."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_MODULES = {"slipway": "app", "slipwayd": "helper", "docker-credential-slipway": "app.credential_helper"}


def install(folder: Path, *names: str) -> str:
    """Puts the programs *names* of this checkout into *folder*; returns a PATH that begins with it."""
    folder.mkdir(exist_ok=True)
    for name in names:
        at = folder / name
        at.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m {_MODULES[name]} "$@"\n')
        at.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"
