"""What may be asked about processes that are there, and changes no life: signals, sizes, clients, lists, namespaces."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import termios
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any

from backend.runtime import syscalls as sc
from backend.runtime import userns
from backend.runtime.model import Answer, Container, Process
from backend.runtime.plan import BadConfig
from backend.runtime.protocol import KeeperError
from backend.runtime.protocol import field as get
from backend.runtime.pump import Client


class Requests:
    """Requests about the containers in *all*; *find* gives the process that a request names."""

    def __init__(self, all: Mapping[str, Container], find: Callable[[dict[str, Any], str], Process]) -> None:
        self._all = all
        self._find = find

    def kill(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        """Signals a process, or all of its container's."""
        process = self._find(message, "kill")
        number = get(message, "signal", "int")
        if process.status == "stopped" or process.pidfd < 0:
            raise KeeperError("kill", "not_running", f"container {process.id} is not running")
        if message.get("every"):
            self._all[process.id].cgroup.kill(number)
            answer({})
            return
        try:
            signal.pidfd_send_signal(process.pidfd, number)
        except ProcessLookupError:
            raise KeeperError("kill", "not_running", f"container {process.id} is not running") from None
        except OSError as error:
            raise KeeperError("kill", "other", f"signal {number}: {error.strerror}", error.errno) from error
        answer({})

    def resize(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        """Sets a terminal's size."""
        process = self._find(message, "resize")
        rows, columns = get(message, "rows", "int"), get(message, "columns", "int")
        terminal = process.streams.terminal() if process.streams is not None else -1
        if terminal < 0:
            raise KeeperError(
                "resize", "not_running" if process.stdio.tty else "other", "there is no terminal to resize"
            )
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))
        answer({})

    def attach(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        """Joins a client to a process's streams."""
        process = self._find(message, "attach")
        if process.streams is None:
            raise _no_streams(process)
        if len(fds) != 1:
            raise KeeperError("attach", "bad_config", "an attach comes with the far end of a pair of sockets")
        answer({})
        join_client(process, os.dup(fds[0]), message)

    def listing(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        """Answers in pages of 100, so that no message is longer than a socket takes."""
        start = get(message, "start", "int", 0)
        names = sorted(self._all)
        page = [self._entry(self._all[name]) for name in names[start : start + 100]]
        answer({"containers": page, "next": start + 100 if start + 100 < len(names) else 0})

    @staticmethod
    def _entry(container: Container) -> dict[str, Any]:
        def status(process: Process) -> str:
            return {"preparing": "created", "starting": "running"}.get(process.status, process.status)

        def end(process: Process) -> dict[str, Any] | None:
            return process.exit.to_wire() if process.exit else None

        process = container.process
        lost = process.status == "running" and process.stdio.tty and process.streams is None
        execs = [
            {"exec_id": e.exec_id, "pid": e.pid, "status": status(e), "exit": end(e)} for e in container.execs.values()
        ]
        return {"id": process.id, "pid": process.pid, "status": status(process), "started_at": process.started_at,
                "exit": end(process), "execs": execs, "terminal_lost": lost}  # fmt: skip

    def netns(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        """Makes network namespaces with lo up."""
        made: list[int] = []
        own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for _ in range(min(max(get(message, "count", "int", 1), 1), 16)):
                sc.unshare(sc.CLONE_NEWNET)
                sc.loopback_up()
                made.append(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise KeeperError("netns", "other", f"network namespace: {error.strerror}", error.errno) from error
        finally:
            sc.setns(own, sc.CLONE_NEWNET)
            os.close(own)
            try:
                if made:
                    answer({}, made)
            finally:
                for fd in made:
                    os.close(fd)


    def userns(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        """Makes a user namespace and a network namespace in it."""
        made: tuple[int, ...] = ()
        try:
            maps = userns.id_maps({"uidMappings": message.get("uids"), "gidMappings": message.get("gids")})
            if maps is None:
                raise BadConfig("a user namespace needs ID mappings")
            made = userns.make(maps)
            answer({}, list(made))
        except BadConfig as error:
            raise KeeperError("userns", "bad_config", str(error)) from error
        except OSError as error:
            text = f"user namespace: {error.strerror}; --userns=host does without"
            raise KeeperError("userns", "other", text, error.errno) from error
        finally:
            for fd in made:
                os.close(fd)


def join_client(process: Process, fd: int, wish: dict[str, Any]) -> None:
    """Gives *fd*, a client's socket, to a process; with no streams left it hears the end.

    *wish*: the fields of :class:`backend.runtime.protocol.ClientWish`.
    """
    sock = socket.socket(fileno=fd)
    if process.streams is None:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        return
    streams = frozenset(n for n, name in ((1, "stdout"), (2, "stderr")) if wish.get(name))
    framed = not process.stdio.tty if wish.get("framed") is None else bool(wish["framed"])
    client = Client(sock, stdin=bool(wish.get("stdin")), streams=streams, framed=framed)
    client.buffer += b64decode(wish.get("buffer", ""))  # of a keeper that became this one
    process.streams.attach(client)


def _no_streams(process: Process) -> KeeperError:
    if process.status != "running":
        return KeeperError("attach", "not_running", f"container {process.id} has no streams to attach to")
    what = "terminal" if process.stdio.tty else "output"
    text = f"its {what} was lost when the helper and the keeper ended at once; restart the container to have it back"
    return KeeperError("attach", "streams_lost", text)
