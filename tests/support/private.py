"""A helper of one's own: state, sockets, firewall table and addresses apart from everybody else's on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.subnets import free_octet

ROOT = Path(__file__).resolve().parents[2]


def docker_client() -> str | None:
    """The docker client to test with: the newest one that ./dev fetched, or the machine's."""
    fetched = Path(os.environ.get("SLIPWAY_CLIENTS", f"{ROOT}.venv/clients"), "usr/bin/docker")
    return str(fetched) if fetched.exists() else shutil.which("docker")


def command_line(pid: int) -> bytes:
    """What process *pid* was executed with; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


class PrivateHelper:
    """A helper process and its folders. Use as a context manager; everything it made is gone afterwards."""

    def __init__(self, *flags: str) -> None:
        self.at = tempfile.mkdtemp(prefix="slipway-test-")
        self.socket = f"{self.at}/s.sock"
        self.data, self.exec = f"{self.at}/data", f"{self.at}/exec"
        self.instance = "slipway-" + hashlib.sha256(self.exec.encode()).hexdigest()[:8]
        octet = free_octet(64, 60, partner=64)
        self.flags = ("--bip", f"10.{octet}.0.1/24", "--default-address-pool", f"base=10.{octet + 64}.0.0/16,size=24", *flags)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = f"{self.at}/log"
        self.root = ROOT                       # the checkout that it runs

    def start(self, timeout: float = 20, *, pass_fds: tuple[int, ...] = ()) -> PrivateHelper:
        """Start it and wait for its ready line. *pass_fds*: descriptors that it inherits, as from a careless shell."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "helper", "--host", f"unix://{self.socket}", "--data-root", self.data,
                 "--exec-root", self.exec, *self.flags],
                cwd=self.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env={**os.environ, "PYTHONPATH": str(self.root)},
                pass_fds=pass_fds,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if b"ready" not in line:
            raise RuntimeError(f"the helper did not start; it said {line!r} and logged:\n{Path(self.log).read_text()[-4000:]}")
        return self

    def leave(self, sig: int = signal.SIGTERM, timeout: float = 30) -> int:
        """Send *sig* and wait; the helper's exit status."""
        assert self.process is not None
        self.process.send_signal(sig)
        code = self.process.wait(timeout)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def docker(self, *arguments: str, stdin: bytes | None = b"", check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
        """Run the real docker client on this helper's socket."""
        program = docker_client()
        assert program is not None, "no docker client on this machine"
        done = subprocess.run([program, "-H", f"unix://{self.socket}", *arguments], input=stdin, capture_output=True, timeout=timeout,
                              env={**os.environ, "DOCKER_CONFIG": f"{self.at}/docker"})
        if check and done.returncode:
            raise AssertionError(f"docker {' '.join(arguments)} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
        return done

    def keepers(self) -> list[int]:
        """Those of them that run the keeper's program."""
        return [pid for pid in self.processes() if b"keeper.py" in command_line(pid)]

    def processes(self) -> list[int]:
        """Everything that still runs on behalf of this helper: its own processes by their exec-root."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                with contextlib.suppress(OSError):
                    if self.exec.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                        found.append(int(entry))
        return found

    def __enter__(self) -> PrivateHelper:
        return self.start()

    def __exit__(self, *_: object) -> None:
        try:
            if self.process is not None and self.process.poll() is None:
                with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                    ids = self.docker("ps", "-aq", timeout=20).stdout.decode().split() if docker_client() else []
                    if ids:
                        self.docker("rm", "-f", *ids, check=False)
                self.leave()
        finally:
            deadline = time.monotonic() + 5
            while (left := self.processes()) and time.monotonic() < deadline:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
            shutil.rmtree(self.at, ignore_errors=True)
