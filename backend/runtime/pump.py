"""The streams of one process: its output to log and clients, its input from clients. Bounded everywhere.

Output is handed on by chunk as it was read. A client that does not read holds up to :data:`CLIENT_LIMIT` bytes; then
the process's output waits, as Docker's does, until the client reads or leaves. A log that cannot be written loses
lines but never stops the process. Input waits in the client's socket while the process does not read.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from backend.logs import LogWriter
from backend.runtime.loop import ERR, HUP, IN, OUT, Loop

CHUNK = 64 << 10
CLIENT_LIMIT = 1 << 20
STDIN_LIMIT = 64 << 10
RDHUP = 0x2000


class Client:
    """One attached client: the keeper's end of a stream socket."""

    __slots__ = ("buffer", "framed", "leaving", "reads_stdin", "sock", "streams")

    def __init__(self, sock: socket.socket, *, stdin: bool, streams: frozenset[int], framed: bool) -> None:
        self.sock = sock
        self.reads_stdin = stdin
        self.streams = streams
        self.framed = framed
        self.buffer = bytearray()
        self.leaving = False  # close once the buffer is out


class Streams:
    """Pumps one process. *outputs*: stream number (1, 2) -> descriptor; a terminal is number 1 and *stdin* at once."""

    def __init__(
        self,
        loop: Loop,
        outputs: dict[int, int],
        stdin: int,
        *,
        tty: bool,
        stdin_once: bool,
        log: LogWriter | None,
        on_write: Callable[[], None],
        on_stdin_closed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._outputs = dict(outputs)
        self._stdin = stdin
        self._tty = tty
        self._stdin_once = stdin_once
        self._log = log
        self._on_write = on_write
        self._on_stdin_closed = on_stdin_closed
        self._clients: list[Client] = []
        self._pending = bytearray()  # input that the process has not taken yet
        self._stdin_ending = False
        self._paused = False
        self._dead = False  # the process is gone: what is left is read without regard to clients
        self._end_told = False  # clients hear the end of output only after the process's end has been told
        for number, fd in self._outputs.items():
            os.set_blocking(fd, False)
            loop.watch(fd, self._mask(fd), lambda events, n=number: self._output_ready(n, events))  # type: ignore[misc]
        if stdin >= 0 and not tty:
            os.set_blocking(stdin, False)

    # --- output -----------------------------------------------------------------------------------------------------
    def _mask(self, fd: int) -> int:
        wanted = 0 if self._paused else IN
        if self._tty and fd == self._stdin and self._pending:
            wanted |= OUT
        return wanted

    def _output_ready(self, number: int, events: int) -> None:
        fd = self._outputs.get(number)
        if fd is None:
            return
        if events & OUT:
            self._flush_stdin()
        if events & (IN | HUP | ERR):
            if self._paused and not self._dead:
                # Hang-up is reported whatever the mask: stop watching until clients have read.
                self._loop.forget(fd)
                return
            self._read_output(number, fd)

    def _read_output(self, number: int, fd: int) -> bool:
        """Reads one chunk. False: nothing there now, or the end."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal says its end so
                raise
            data = b""
        if not data:
            self._close_output(number)
            return False
        self._deliver(number, data)
        return True

    def _deliver(self, number: int, data: bytes) -> None:
        if self._log is not None:
            self._log.write(number, data, time.time_ns())
            self._on_write()
        if not self._clients:
            return
        head = struct.pack(">BxxxI", number, len(data))
        for client in self._clients[:]:
            if number in client.streams:
                self._send(client, head + data if client.framed else data)
        if not self._dead and any(len(c.buffer) >= CLIENT_LIMIT for c in self._clients):
            self._pause(True)

    def _close_output(self, number: int) -> None:
        fd = self._outputs.pop(number)
        self._loop.forget(fd)
        if fd == self._stdin:
            self._stdin = -1
        os.close(fd)
        if not self._outputs:
            if self._end_told:
                self._finish_all()
            if self._log is not None:
                self._log.flush()

    def end_told(self) -> None:
        """The process's end is known to the helper: who sees the end of output and asks for the exit code gets it.

        `docker exec` asks once, at the end of output, and takes "still running" for success.
        """
        self._end_told = True
        if not self._outputs:
            self._finish_all()

    def _finish_all(self) -> None:
        for client in self._clients[:]:
            self._finish(client)

    def _pause(self, on: bool) -> None:
        if self._paused == on:
            return
        self._paused = on
        for number, fd in self._outputs.items():
            self._loop.watch(fd, self._mask(fd), lambda events, n=number: self._output_ready(n, events))  # type: ignore[misc]

    def hold(self, on: bool) -> None:
        """Leaves output in the pipes for now, or goes on."""
        self._pause(on)

    def drain(self) -> bool:
        """After the process's death: reads what is there, clients or not. True: the end of output was seen."""
        self._dead = True
        for number, fd in list(self._outputs.items()):
            while self._read_output(number, fd):
                pass
        if self._outputs:
            self._pause(False)
        return not self._outputs

    @property
    def outputs(self) -> dict[int, int]:
        """Stream number -> descriptor, of those that are open."""
        return self._outputs

    @property
    def stdin(self) -> int:
        """The input's descriptor, or -1."""
        return self._stdin

    @property
    def ended(self) -> bool:
        """Whether all output has been read."""
        return not self._outputs

    def abandon(self) -> None:
        """Closes the outputs although somebody still holds the other end (a background child of an exec)."""
        for number in list(self._outputs):
            self._close_output(number)

    # --- clients ----------------------------------------------------------------------------------------------------
    def attach(self, client: Client) -> None:
        """Takes a client; with the output already at its end it only hears the end."""
        client.sock.setblocking(False)
        self._clients.append(client)
        fd = client.sock.fileno()
        self._loop.watch(fd, IN | RDHUP, lambda events: self._client_ready(client, events))
        if client.buffer:
            self._send(client, b"")
        if not self._outputs and self._end_told:
            self._finish(client)

    def _client_mask(self, client: Client) -> int:
        mask = OUT if client.buffer else 0
        if not client.leaving and (not client.reads_stdin or len(self._pending) < STDIN_LIMIT):
            mask |= IN
        return mask

    def _client_ready(self, client: Client, events: int) -> None:
        if events & (IN | RDHUP | HUP) and not client.leaving:
            self._read_client(client, bool(events & HUP))
        if client not in self._clients:
            return
        if events & (ERR | HUP):
            self._drop(client)
        elif events & OUT:
            self._send(client, b"")

    def _read_client(self, client: Client, gone: bool) -> None:
        while True:
            if client.reads_stdin and len(self._pending) >= STDIN_LIMIT and not gone:
                return
            try:
                data = client.sock.recv(CHUNK)
            except BlockingIOError:
                return
            except OSError:
                self._drop(client)
                return
            if not data:
                break
            if client.reads_stdin:
                self._feed(data)
            if not gone:  # closed with data left (at most a socket's buffer): take it all
                self._loop.set_mask(client.sock.fileno(), self._client_mask(client))
                return
        self._input_over(client)
        # Half-closed: output still flows. Without this, epoll would report the end of input for ever.
        self._loop.set_mask(client.sock.fileno(), OUT if client.buffer else 0)

    def _input_over(self, client: Client) -> None:
        if client.reads_stdin:
            client.reads_stdin = False
            if self._stdin_once and not self._tty:
                self.close_stdin()

    def _send(self, client: Client, data: bytes) -> None:
        if client.buffer:
            client.buffer += data
            data = b""
        try:
            if client.buffer:
                sent = client.sock.send(client.buffer, socket.MSG_NOSIGNAL)
                del client.buffer[:sent]
            elif data:
                sent = client.sock.send(data, socket.MSG_NOSIGNAL)
                if sent < len(data):
                    client.buffer += memoryview(data)[sent:]
        except BlockingIOError:
            client.buffer += data
        except OSError:
            self._drop(client)
            return
        if not client.buffer and client.leaving:
            self._drop(client)
            return
        self._loop.set_mask(client.sock.fileno(), self._client_mask(client))
        if self._paused and all(len(c.buffer) < CLIENT_LIMIT // 2 for c in self._clients):
            self._pause(False)

    def _finish(self, client: Client) -> None:
        """The end of output: the client gets what it has not read, then the end of file."""
        client.leaving = True
        self._send(client, b"")

    def _drop(self, client: Client) -> None:
        if client not in self._clients:
            return
        self._clients.remove(client)
        self._loop.forget(client.sock.fileno())
        # The helper may hold a copy of our end (see backend.runtime.copies): closing alone would not be the end.
        with suppress(OSError):
            client.sock.shutdown(socket.SHUT_RDWR)
        client.sock.close()
        self._input_over(client)
        if self._paused and all(len(c.buffer) < CLIENT_LIMIT // 2 for c in self._clients):
            self._pause(False)

    # --- input ------------------------------------------------------------------------------------------------------
    def _feed(self, data: bytes) -> None:
        if self._stdin < 0:
            return  # the process has closed its input: what is sent goes nowhere
        self._pending += data
        self._flush_stdin()

    def _flush_stdin(self) -> None:
        while self._pending and self._stdin >= 0:
            try:
                sent = os.write(self._stdin, self._pending)
            except BlockingIOError:
                break
            except OSError:
                self._pending.clear()
                self._close_stdin_now()
                return
            del self._pending[:sent]
        if not self._pending and self._stdin_ending:
            self._close_stdin_now()
        self._watch_stdin()
        for client in self._clients:
            self._loop.set_mask(client.sock.fileno(), self._client_mask(client))

    def _watch_stdin(self) -> None:
        if self._stdin < 0:
            return
        if self._tty:
            self._loop.set_mask(self._stdin, self._mask(self._stdin))
        elif self._pending:
            self._loop.watch(self._stdin, OUT, lambda _: self._flush_stdin())
        else:
            self._loop.forget(self._stdin)

    def close_stdin(self) -> None:
        """Ends the process's input once what is pending has been taken."""
        self._stdin_ending = True
        if self._stdin >= 0 and not self._pending:
            self._close_stdin_now()

    def _close_stdin_now(self) -> None:
        if self._stdin >= 0 and not self._tty:
            self._loop.forget(self._stdin)
            os.close(self._stdin)
            self._on_stdin_closed()
        self._stdin = -1

    @property
    def clients(self) -> list[Client]:
        """Who is attached."""
        return self._clients

    @property
    def pending(self) -> bytes:
        """Input that the process has not taken yet."""
        return bytes(self._pending)

    @property
    def stdin_ending(self) -> bool:
        """Whether its input ends after that."""
        return self._stdin_ending

    def flush_log(self) -> None:
        """Writes down what the log holds back."""
        if self._log is not None:
            self._log.flush()

    def feed(self, data: bytes, *, ending: bool) -> None:
        """Input that an earlier keeper had taken from clients."""
        self._stdin_ending = ending
        self._feed(data)

    def take_stdin(self, fd: int) -> None:
        """The input's descriptor of a process whose streams were found again without it."""
        os.set_blocking(fd, False)
        self._stdin = fd

    # --- the end ----------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Lets everything go at once."""
        self._on_stdin_closed = lambda: None
        self._end_told = True
        self.abandon()
        self._close_stdin_now()
        for client in self._clients[:]:
            with suppress(OSError):
                self._drop(client)
        if self._log is not None:
            self._log.close()
            self._log = None

    def terminal(self) -> int:
        """The terminal's descriptor, or -1."""
        return self._outputs.get(1, -1) if self._tty else -1
