"""The command line `slipway`, run as a program on a private helper's socket."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.private import ROOT, PrivateHelper


def command(helper: PrivateHelper, *words: str) -> list[str]:
    """The words of `slipway ...` on *helper*."""
    return [sys.executable, "-m", "app", "-H", f"unix://{helper.socket}", *words]


def environment(helper: PrivateHelper) -> dict[str, str]:
    """An environment whose settings, logins included, are the helper's own and gone with it."""
    kept = {key: value for key, value in os.environ.items() if key not in ("DBUS_SESSION_BUS_ADDRESS", "SLIPWAY_HOST")}
    return {**kept, "HOME": helper.at, "XDG_CONFIG_HOME": f"{helper.at}/config", "DOCKER_CONFIG": f"{helper.at}/docker",
            "XDG_DATA_HOME": f"{helper.at}/share", "XDG_RUNTIME_DIR": helper.at, "TERM": "xterm", "PYTHONPATH": str(ROOT)}


def slipway(helper: PrivateHelper, *words: str, stdin: bytes | None = b"", check: bool = True,
            timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
    """Runs `slipway ...`; with *check* its status must be 0."""
    done = subprocess.run(command(helper, *words), input=stdin, capture_output=True, timeout=timeout, cwd=ROOT, env=environment(helper))
    if check and done.returncode:
        raise AssertionError(f"slipway {' '.join(words)} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done
