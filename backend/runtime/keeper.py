"""The keeper: parent of all containers, holder of their streams, writer of their logs. Outlives the helper.

One process, one thread, epoll, standard library only. Run as ``python -I -S keeper.py --exec-root DIR`` by
:meth:`backend.runtime.client.Keeper.find_or_start`; it holds ``keeper.lock`` as long as it lives, so there is one for
each exec-root. See :mod:`backend.runtime.protocol` for what it may be asked.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # -I -S: nothing but the standard library is on the path
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import fcntl
import gc
import resource
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backend.runtime import caps
from backend.runtime import syscalls as sc
from backend.runtime.containers import Containers
from backend.runtime.init import IGNORED
from backend.runtime.loop import HUP, IN, OUT, Loop
from backend.runtime.protocol import MAX_MESSAGE, SOCKET, VERSION, KeeperError, Op, decode, encode, field
from backend.runtime.spawn import Machine
from backend.runtime.upgrade import Inherited, pass_on, receive


@dataclass(frozen=True, slots=True)
class Start:
    """What this keeper began with. *build*: which code it runs; *lock*: its hold on the exec-root."""

    build: str
    lock: int
    inherited: Inherited | None


class Connection:
    """One helper's connection: whole messages, queued while the helper does not read."""

    def __init__(self, loop: Loop, sock: socket.socket, keeper: Server) -> None:
        self._loop, self._sock, self._keeper = loop, sock, keeper
        self._queue: list[tuple[bytes, list[int]]] = []
        self.watched_logs: set[str] = set()
        self._grown: set[str] = set()  # watched logs of which it has not been told yet
        sock.setblocking(False)
        loop.watch(sock.fileno(), IN, self._ready)

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Sends, or queues with copies of the descriptors (the caller may close its own)."""
        self._queue.append((encode(message), [os.dup(fd) for fd in fds or []]))
        self._flush()

    def log_grown(self, id: str) -> None:
        """Tells so; once only while the helper is slow to read, or stopped: nothing may pile up here."""
        if self._queue:
            self._grown.add(id)
        else:
            self.send({"event": "log", "id": id})

    def _flush(self) -> None:
        while self._queue or self._grown:
            if not self._queue:
                self._queue.append((encode({"event": "log", "id": self._grown.pop()}), []))
            data, fds = self._queue[0]
            try:
                sc.send_fds(self._sock, data, fds)
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            self._queue.pop(0)
            for fd in fds:
                os.close(fd)
        if self._sock.fileno() >= 0:
            self._loop.set_mask(self._sock.fileno(), IN | OUT if self._queue else IN)

    def _ready(self, events: int) -> None:
        if events & OUT:
            self._flush()
        if not events & (IN | HUP):
            return
        try:
            data, fds = self._keeper.inbox.receive(self._sock)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()
            return
        self._keeper.request(self, data, fds)

    def fileno(self) -> int:
        """Its descriptor."""
        return self._sock.fileno()

    @property
    def behind(self) -> bool:
        """Whether it has not taken all of its answers yet."""
        return bool(self._queue)

    def close(self) -> None:
        """The helper has left (or broke the protocol); its containers stay."""
        if self._sock.fileno() < 0:
            return
        self._loop.forget(self._sock.fileno())
        self._sock.close()
        for _, fds in self._queue:
            for fd in fds:
                os.close(fd)
        self._queue.clear()
        self._keeper.left(self)


class Server:
    """Accepts helpers and hands their requests to :class:`Containers`."""

    def __init__(self, exec_root: str, machine: Machine, start: Start) -> None:
        self._loop = Loop(guarded)
        self._start = start
        self._exec_root, self._nofile = exec_root, machine.nofile
        self.inbox = sc.Inbox(MAX_MESSAGE)
        self._connections: list[Connection] = []
        given = start.inherited
        self._entrusted: dict[str, list[int]] = dict(given.entrusted) if given else {}
        self._containers = Containers(self._loop, machine, exec_root, self._broadcast, self._log_grown)
        self._containers.begin(given.processes if given else None)
        if given is None:
            self._listener = self._listen(f"{exec_root}/{SOCKET}")
        else:
            self._listener = socket.socket(fileno=given.listener)
            self._go_on(given)
        self._path = f"{exec_root}/{SOCKET}"
        self._loop.watch(self._listener.fileno(), IN, self._accept)

    def _go_on(self, given: Inherited) -> None:
        """Takes the helpers over that the keeper had before it became this one."""
        for fd in given.connections:
            connection = Connection(self._loop, socket.socket(fileno=fd), self)
            self._connections.append(connection)
            if fd == given.asker:
                connection.send({"n": given.number, "ok": {"version": VERSION, "build": self._start.build}})

    @staticmethod
    def _listen(path: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(16)
        listener.setblocking(False)
        return listener

    def _accept(self, _: int) -> None:
        try:
            sock, _address = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if int.from_bytes(peer[4:8], sys.byteorder, signed=True) != os.geteuid():
            sock.close()
            return
        enlarge(sock)
        self._connections.append(Connection(self._loop, sock, self))

    def left(self, connection: Connection) -> None:
        """Forgets a connection."""
        if connection in self._connections:
            self._connections.remove(connection)

    def _broadcast(self, message: dict[str, Any]) -> None:
        for connection in self._connections[:]:
            connection.send(message)

    def _log_grown(self, id: str) -> None:
        for connection in self._connections[:]:
            if id in connection.watched_logs:
                connection.log_grown(id)

    def request(self, connection: Connection, data: bytes, fds: list[int]) -> None:
        """One request. Descriptors that the operation does not keep are closed here."""
        number: object = None
        try:
            message = decode(data)
            number = message.get("n")

            def answer(result: dict[str, Any] | KeeperError, out: list[int] | None = None) -> None:
                if isinstance(result, KeeperError):
                    connection.send({"n": number, "error": result.to_wire()})
                else:
                    connection.send({"n": number, "ok": result}, out)

            self._dispatch(connection, message, fds, answer)
        except KeeperError as error:
            connection.send({"n": number, "error": error.to_wire()})
        except Exception as error:
            sys.excepthook(type(error), error, error.__traceback__)
            connection.send(
                {"n": number, "error": KeeperError("keeper", "other", f"{type(error).__name__}: {error}").to_wire()}
            )
        finally:
            for fd in fds:
                os.close(fd)

    def _dispatch(self, connection: Connection, message: dict[str, Any], fds: list[int], answer: Any) -> None:
        op = Op(message.get("op"))
        if op is Op.HELLO:
            answer({"version": VERSION, "pid": os.getpid(), "build": self._start.build})
        elif op is Op.UPGRADE:
            self._upgrade(connection, message, fds)
        elif op is Op.ENTRUST:
            name = str(message.get("name"))
            for fd in self._entrusted.pop(name, []):
                os.close(fd)
            if fds:
                self._entrusted[name] = [os.dup(fd) for fd in fds]
            answer({})
        elif op is Op.ENTRUSTED:
            answer({}, self._entrusted.get(str(message.get("name")), []))
        elif op is Op.STOP:
            self._containers.require_empty()
            os.unlink(self._path)  # first: whoever has the answer may remove the folder or start another keeper
            answer({})
            self._loop.running = False
        elif op is Op.WATCH_LOG:
            id = str(message.get("id"))
            (connection.watched_logs.add if message.get("on", True) else connection.watched_logs.discard)(id)
            self._containers.watch_log(id, any(id in c.watched_logs for c in self._connections))
            answer({})
        else:
            self._containers.handle(op, message, fds, answer)

    def _upgrade(self, connection: Connection, message: dict[str, Any], fds: list[int]) -> None:
        """Becomes another program, which gives the answer. Raises :class:`KeeperError` if this one has to stay."""
        command = {name: field(message, name, "str") for name in ("argv0", "program", "build")}
        if len(fds) != 1 or any(one.behind for one in self._connections):
            raise KeeperError("upgrade", "busy", "a helper has not read its answers yet")
        try:
            frozen = self._containers.takeover.freeze(bool(message.get("force")))
            given = Inherited(self._listener.fileno(), self._start.lock, [c.fileno() for c in self._connections],
                              connection.fileno(), message.get("n"), self._nofile, frozen, self._entrusted)  # fmt: skip
            pass_on(given, self._exec_root, command, fds[0])
        finally:
            self._containers.takeover.go_on()  # only reached if it has to stay

    def run(self) -> None:
        """Serves until asked to stop."""
        self._loop.run()


def guarded(call: Callable[..., None], *arguments: int) -> bool:
    """Calls; a bug in what concerns one container must not be the end of all. False: it failed, and is in the log."""
    try:
        call(*arguments)
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return False
    return True


def enlarge(sock: socket.socket) -> None:
    """Room for the longest message; needs CAP_NET_ADMIN to go beyond the system's default."""
    for forced, plain in ((32, socket.SO_SNDBUF), (33, socket.SO_RCVBUF)):  # SO_SNDBUFFORCE, SO_RCVBUFFORCE
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, 2 * MAX_MESSAGE)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, plain, 2 * MAX_MESSAGE)


def _prepare() -> Machine:
    """Makes this process fit to be everybody's parent."""
    os.umask(0o077)
    os.chdir("/")
    sc.prctl(sc.PR_SET_DUMPABLE, 0)  # inherited by every child until its execve
    sc.set_name("slipway-keeper")
    for number in range(1, 65):
        if number not in (9, 19, 32, 33):
            signal.signal(number, signal.SIG_DFL)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ.clear()
    machine = Machine(caps.bounding(), (soft, hard), caps.known())
    machine.pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    return machine


def _lock(exec_root: str) -> int:
    """The one keeper of an exec-root holds this descriptor. Raises :class:`BlockingIOError`."""
    lock = os.open(f"{exec_root}/keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def main() -> int:
    """Takes the lock, says "ready" on the descriptor it was given, serves; or goes on as a newer program."""
    # argparse would cost half a megabyte for as long as the keeper lives; only our own code calls this.
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    exec_root, ready = options["--exec-root"], int(options.get("--ready-fd", "-1"))
    inherited = receive(int(options["--inherit"])) if "--inherit" in options else None
    keep = {0, 1, 2, ready, *(inherited.descriptors() if inherited else ())} - {-1}
    sc.close_all_but(keep)  # the file of the interpreter, for one
    try:
        lock = inherited.lock if inherited else _lock(exec_root)
    except BlockingIOError:
        return 3  # another one serves this exec-root
    machine = _prepare()
    if inherited is not None:
        machine.nofile = inherited.nofile
    server = Server(exec_root, machine, Start(options.get("--build", ""), lock, inherited))
    if ready >= 0:
        os.write(ready, b"1")
        os.close(ready)
    gc.collect()
    gc.freeze()  # forked children then share these pages instead of copying them
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
