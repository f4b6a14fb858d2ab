"""A real gnome-keyring on a D-Bus session of its own, with its files in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator

_INSIDE = """
printf 'a passphrase' | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1
echo "$DBUS_SESSION_BUS_ADDRESS"
exec sleep infinity
"""


@contextlib.contextmanager
def gnome_keyring() -> Iterator[dict[str, str]]:
    """Yields the variables that a program needs to find it: the bus, HOME, XDG_*.

    Raises:
        LookupError: gnome-keyring or D-Bus is not installed.
    """
    for program in ("dbus-run-session", "gnome-keyring-daemon"):
        if shutil.which(program) is None:
            raise LookupError(f"{program} is not installed")
    at = tempfile.mkdtemp(prefix="slipway-keyring-")
    env = {"HOME": at, "XDG_RUNTIME_DIR": f"{at}/run", "XDG_CONFIG_HOME": f"{at}/config", "XDG_DATA_HOME": f"{at}/share"}
    os.mkdir(f"{at}/run", 0o700)
    session = subprocess.Popen(["dbus-run-session", "--", "sh", "-c", _INSIDE], env={**os.environ, **env}, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, text=True)
    try:
        assert session.stdout is not None
        bus = session.stdout.readline().strip()
        if not bus:
            raise RuntimeError("no D-Bus session came up")
        yield {**env, "DBUS_SESSION_BUS_ADDRESS": bus}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(session.pid, signal.SIGTERM)
        session.wait(10)
        assert session.stdout is not None
        session.stdout.close()
        _end_those_of(at)
        shutil.rmtree(at, ignore_errors=True)


def _end_those_of(folder: str) -> None:
    """The daemon puts itself into a session of its own: it is known by the folder in its environment."""
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and int(entry) != os.getpid() and f"HOME={folder}\0".encode() in open(f"/proc/{entry}/environ", "rb").read():
                os.kill(int(entry), signal.SIGKILL)
