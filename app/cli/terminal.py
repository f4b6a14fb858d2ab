"""The terminal and a container's streams: raw mode that is always undone, size changes, detach keys, the shovel."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys

from app.cli.errors import Usage
from app.cli.http import Answer, deframed

TYPING = False
if TYPING:
    from collections.abc import Callable, Generator, Iterator

DETACH_KEYS = "ctrl-p,ctrl-q"
_CTRL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


def key_bytes(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` or ``a,b`` as the bytes that the keys send."""
    out = bytearray()
    for part in text.split(","):
        if len(part) == 1 and part.isascii():
            out += part.encode()
        elif part.startswith("ctrl-") and len(part) == 6 and part[5].lower() in _CTRL:
            out.append(_CTRL.index(part[5].lower()))
        else:
            raise Usage(f"{text!r} names no detach keys: single letters or ctrl-LETTER, with commas between.", 125)
    return bytes(out)


class Detacher:
    """Watches typed bytes for the detach keys; what only began like them is let through."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what to send on, whether the keys are complete)."""
        out = bytearray()
        for byte in data:
            self._held += bytes((byte,))
            while self._held and not self._keys.startswith(self._held):
                out.append(self._held[0])
                self._held = self._held[1:]
            if self._keys and self._held == self._keys:
                return bytes(out), True
        return bytes(out), False


@contextlib.contextmanager
def raw_mode(wanted: bool) -> Iterator[None]:
    """The terminal on stdin passes every key on as it is, until the block ends, however it ends."""
    if not wanted or not os.isatty(0):
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(0)
    # SIGTERM and SIGHUP would otherwise end this program with the terminal left raw.
    signals = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        for number, handler in signals.items():
            signal.signal(number, handler)


def _leave(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def size() -> tuple[int, int] | None:
    """Rows and columns of the terminal; None without one."""
    for fd in (1, 0, 2):
        try:
            found = os.get_terminal_size(fd)
        except OSError:
            continue
        if found.lines and found.columns:
            return found.lines, found.columns
    return None


class Session:
    """An upgraded connection and this program's streams, until the container's output ends or the user detaches."""

    def __init__(self, answer: Answer, *, tty: bool, stdin: bool, keys: str = "") -> None:
        self._answer = answer
        self._socket: socket.socket = answer.connection
        self._tty = tty
        self._stdin = stdin
        self._detacher = Detacher(key_bytes(keys or DETACH_KEYS)) if tty and stdin else None
        self._waiting = b""
        self.detached = False

    def run(self, *, on_resize: Callable[[], None] | None = None,
            on_signal: Callable[[int], None] | None = None) -> None:
        """Shovels. *on_resize*: called for each change of the terminal's size; *on_signal*: for each signal."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        old_wake = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        watched = [signal.SIGWINCH] if on_resize else []
        if on_signal:
            watched += [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2]
        before = {number: signal.signal(number, lambda *_: None) for number in watched}
        try:
            self._loop(reader, on_resize, on_signal)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_wake)
            os.close(reader)
            os.close(writer)
            self._socket.close()

    def _loop(self, wake: int, on_resize: Callable[[], None] | None, on_signal: Callable[[int], None] | None) -> None:
        self._socket.setblocking(False)
        if not self._stdin:
            self._end_input()
        self._incoming = self._answer.take_rest()
        output = self._output()
        next(output)
        if self._incoming:
            output.send(self._incoming)
        while True:
            readers: list[int | socket.socket] = [self._socket, wake]
            # Nothing more is read from the user while the container does not take what he typed already.
            if self._stdin and not self._waiting:
                readers.append(0)
            readable, writable, _ = select.select(readers, [self._socket] if self._waiting else [], [])
            if wake in readable:
                self._signals(os.read(wake, 64), on_resize, on_signal)
            if writable:
                self._write(b"")
            if 0 in readable and self._typed():
                return
            if self._socket in readable:
                try:
                    data = self._socket.recv(1 << 16)
                except BlockingIOError:
                    continue
                except ConnectionResetError:
                    return
                if not data:
                    return
                output.send(data)

    def _output(self) -> Generator[None, bytes, None]:
        """A coroutine that is sent bytes of the connection and writes them to where they belong."""
        if self._tty:
            while True:
                data = yield
                _write_all(1, data)
        rest = b""
        while True:
            rest += yield
            used = 0
            for stream, data in deframed([rest]):
                _write_all(2 if stream == 2 else 1, data)
                used += 8 + len(data)
            rest = rest[used:]

    @staticmethod
    def _signals(numbers: bytes, on_resize: Callable[[], None] | None, on_signal: Callable[[int], None] | None) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                if on_resize:
                    on_resize()
            elif on_signal and number != signal.SIGCHLD:
                on_signal(number)

    def _typed(self) -> bool:
        """Takes what came on stdin; whether the user has detached."""
        try:
            data = os.read(0, 1 << 14)
        except OSError:  # the terminal is gone
            data = b""
        if not data:
            self._stdin = False
            self._end_input()
            return False
        if self._detacher:
            data, self.detached = self._detacher.feed(data)
            if self.detached:
                return True
        self._write(data)
        return False

    def _write(self, data: bytes) -> None:
        self._waiting += data
        try:
            while self._waiting:
                self._waiting = self._waiting[self._socket.send(self._waiting):]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self._waiting, self._stdin = b"", False
            return

    def _end_input(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data):]
        except BlockingIOError:
            select.select([], [fd], [])
