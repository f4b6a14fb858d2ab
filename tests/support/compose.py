"""The real docker compose to test beside: the plug-in of the client that ./dev fetched, or the machine's."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

from tests.support.private import docker_client


def environment() -> dict[str, str]:
    """The environment in which docker finds its plug-ins and no project of the caller's."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("COMPOSE_")}
    config = Path(docker_client() or "/").resolve().parents[2:3]
    if config and (config[0] / "config" / "cli-plugins").is_dir():
        env["DOCKER_CONFIG"] = str(config[0] / "config")
    return env


@functools.cache
def has_compose() -> bool:
    """Whether `docker compose` can be run."""
    program = docker_client()
    return program is not None and subprocess.run(
        [program, "compose", "version"], env=environment(), capture_output=True).returncode == 0
