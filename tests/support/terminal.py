"""A pseudo-terminal with a program in it, driven as a person does."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time


class Terminal:
    """A person at a terminal: types, and reads what the screen shows."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: str | None = None) -> None:
        self.master, slave = pty.openpty()
        self.resize(30, 100)
        # With the terminal as its controlling one, so that a change of size is signalled.
        self.process = subprocess.Popen(["setsid", "-cw", *command], stdin=slave, stdout=slave, stderr=slave, env=env, cwd=cwd)
        os.close(slave)
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str, timeout: float = 30) -> re.Match[str]:
        """Wait until *pattern* shows; the match. What was read up to its end is used up."""
        deadline = time.monotonic() + timeout
        while True:
            found = re.search(pattern, self.seen)
            if found:
                self.seen = self.seen[found.end():]
                return found
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise AssertionError(f"{pattern!r} did not show; the screen had {self.seen!r}")
            try:
                got = os.read(self.master, 65536)
            except OSError:
                got = b""
            if not got:
                raise AssertionError(f"the terminal ended before {pattern!r}; the screen had {self.seen!r}")
            self.seen += got.decode(errors="replace")

    def end(self, timeout: float = 30) -> int:
        code = self.process.wait(timeout)
        os.close(self.master)
        return code
