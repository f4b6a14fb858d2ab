"""What helper and keeper say to each other: one JSON object a SOCK_SEQPACKET message, descriptors beside it.

    helper                                    keeper
      | -- {"n": 7, "op": "create", ...} + fds -> |
      | <- {"n": 7, "ok": {...}} + fds ---------- |      exactly one answer a request; answers may overtake
      | <- {"n": 7, "error": {...}} ------------- |
      | <- {"event": "exit", ...} --------------- |      at any time, to every connected helper
      | <- {"event": "log", "id": ...} ---------- |      a watched log has grown
      | <- {"event": "stdin", "id": ...} -------- |      a container's input was closed: close the copy too

The socket lies in a directory of root's with mode 0700 and the peer's uid is checked, so whoever speaks here is root
already. The list of requests is closed all the same: each does one thing whose effects are stated beside it.
"""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass
from typing import Any

VERSION = 1
SOCKET = "keeper.sock"
MAX_MESSAGE = 4 << 20


class Op(enum.Enum):
    """The requests, with why each is safe to offer."""

    HELLO = "hello"
    """Answers version and pid. Touches nothing."""
    CREATE = "create"
    """Starts a process in fresh namespaces as a bundle says. The bundle is written by the helper alone (directory of
    root's, 0700); the rootfs is untrusted and only followed by descriptors, in a child of its own. Another runtime may
    be named, from a closed list of programs in the system's own directories (see external.py)."""
    START = "start"
    """Lets a created process execute its program: one byte to a child that waits. No new input."""
    EXEC = "exec"
    """Starts a process in a running container's namespaces, found by the pidfd that the keeper has held since the
    container was made: no pid can be mistaken for another. It waits before execve until EXEC_START."""
    EXEC_START = "exec_start"
    """As START, for an exec."""
    KILL = "kill"
    """Signals through a pidfd or to the members of the container's own cgroup. Nothing else can be named."""
    RESIZE = "resize"
    """Sets the size of a terminal that the keeper holds."""
    ATTACH = "attach"
    """Gives a socket with the output of a process, and to its input. Bounded buffers; ends with either side."""
    DELETE = "delete"
    """Kills what is left in the container's cgroup, removes the cgroup, forgets the container."""
    LIST = "list"
    """Tells what the keeper knows. Touches nothing."""
    NETNS = "netns"
    """Makes empty network namespaces with lo up. The keeper is in them for the moment of making, with no input."""
    USERNS = "userns"
    """Makes a user namespace with the ID ranges named and an empty network namespace in it, by a process that holds
    nothing and ends with the request."""
    UNPACK = "unpack"
    """Unpacks a tar (given by descriptor) into a directory (given by descriptor) in a confined child: it can reach
    nothing but the two."""
    INDEX = "index"
    """Reads a tar and writes an index, both by descriptor, in a confined child."""
    FILES = "files"
    """Looks into a file tree, packs it or extracts a tar into it, in a confined child whose root is that tree: a
    running container's (its mount namespace is joined by the pidfd that the keeper has held all along, and no other
    namespace of it), a stopped one's layers (mounted where only the child sees them), or a directory given by
    descriptor. The child is not dumpable, enters before it reads anything, gives up all but a few capabilities,
    follows paths with RESOLVE_IN_ROOT, and speaks through the descriptors that came with the request; its pidfd is
    the answer."""
    WATCH_LOG = "watch_log"
    """Asks to be told when a container's log grows. Touches nothing."""
    COPIES = "copies"
    """Gives copies of a container's descriptors to the helper, which holds them in case the keeper dies."""
    ADOPT = "adopt"
    """Hands a new keeper the descriptors and attached clients that the helper held for a dead one. They only replace
    what is missing; a process is named by its pidfd."""
    UPGRADE = "upgrade"
    """Executes a newer keeper over this one, with its descriptors kept. What is executed comes from the helper, which
    is root and could start any program anyway; the interpreter comes as an open file. Like HELLO, this request stays
    as it is in every version."""
    ENTRUST = "entrust"
    """Keeps a second copy of descriptors under a name, unread and unused, so that what hangs on them outlives the
    helper. A name's earlier ones are closed."""
    ENTRUSTED = "entrusted"
    """Gives copies of what was entrusted under a name; none where there is nothing."""
    STOP = "stop"
    """Ends the keeper if it holds no container."""


class KeeperError(RuntimeError):
    """A request failed. *stage*: what was going on; *reason*: one word of the contract; *errno* if a call failed.

    Reasons: ``not_found`` (program missing), ``not_permitted`` (program cannot be run), ``no_user``, ``bad_cwd``,
    ``mount``, ``cgroup``, ``bad_config``, ``not_running``, ``no_such`` (container or exec unknown), ``exists``,
    ``not_installed`` (another runtime), ``lost`` (the keeper is gone), ``streams_lost`` (with keeper and helper at
    once), ``busy``, ``other``. Of FILES: ``no_such`` (no such file), ``not_directory``, ``read_only``,
    ``bad_archive``, ``refused`` (the tree does not take a member), ``no_user``, ``other``.
    """

    def __init__(self, stage: str, reason: str, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.stage = stage
        self.reason = reason
        self.message = message
        self.errno = errno

    def to_wire(self) -> dict[str, Any]:
        """As the answer carries it."""
        return {"stage": self.stage, "reason": self.reason, "message": self.message, "errno": self.errno}

    @classmethod
    def from_wire(cls, data: dict[str, Any]) -> KeeperError:
        """The other way round."""
        return cls(str(data["stage"]), str(data["reason"]), str(data["message"]), data.get("errno"))


@dataclass(frozen=True, slots=True)
class LogTarget:
    """Where output goes. *driver*: "slipway", "json-file" or "none"; sizes in bytes, 0 = no limit."""

    directory: str
    driver: str
    max_size: int
    max_files: int


@dataclass(frozen=True, slots=True)
class Stdio:
    """How the program's streams are made. *stdin_once*: input ends when the first attached client with stdin leaves."""

    tty: bool
    open_stdin: bool
    stdin_once: bool
    rows: int = 0
    columns: int = 0


@dataclass(frozen=True, slots=True)
class ClientWish:
    """What an attached client gets and gives. *framed* None: frames unless the process has a terminal."""

    stdin: bool
    stdout: bool
    stderr: bool
    framed: bool | None = None


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a process. *exec_id* "" is the container itself; *code* as a shell says it (128+n for signals);
    *at* in ns since the epoch; *known* False: it happened while no keeper was there and could not be learnt."""

    id: str
    exec_id: str
    code: int
    signal: int
    at: int
    oom: bool
    known: bool = True

    def to_wire(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, data: dict[str, Any]) -> Exit:
        """The other way round; extra keys are ignored, so that an old file can be read."""
        return cls(**{name: data[name] for name in cls.__slots__ if name in data})


@dataclass(frozen=True, slots=True)
class KeeperExec:
    """An exec that the keeper knows. *status*: "created", "running" or "stopped"."""

    exec_id: str
    pid: int
    status: str
    exit: Exit | None


@dataclass(frozen=True, slots=True)
class KeeperContainer:
    """A container that the keeper knows. *status*: "created", "running", "stopped"; *started_at* ns, 0 = not yet;
    *terminal_lost*: it runs, but helper and keeper have died at once and its terminal with them."""

    id: str
    pid: int
    status: str
    started_at: int
    exit: Exit | None
    execs: tuple[KeeperExec, ...]
    terminal_lost: bool = False

    @classmethod
    def from_wire(cls, data: dict[str, Any]) -> KeeperContainer:
        """From an entry of LIST's answer."""

        def end(value: dict[str, Any] | None) -> Exit | None:
            return Exit.from_wire(value) if value else None

        execs = tuple(KeeperExec(e["exec_id"], e["pid"], e["status"], end(e["exit"])) for e in data["execs"])
        lost = bool(data.get("terminal_lost"))
        return cls(data["id"], data["pid"], data["status"], data["started_at"], end(data["exit"]), execs, lost)


@dataclass(frozen=True, slots=True)
class UnpackResult:
    """What unpacking wrote: number of *entries*, sum of file sizes in *size* bytes."""

    entries: int
    size: int


@dataclass(frozen=True, slots=True)
class IndexResult:
    """What indexing saw: number of *entries*, *size* of the index in bytes."""

    entries: int
    size: int


def encode(message: dict[str, Any]) -> bytes:
    """One message; raises :class:`KeeperError` if it is too long for the socket."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE:
        raise KeeperError("protocol", "bad_config", f"message of {len(data)} bytes is too long")
    return data


def decode(data: bytes) -> dict[str, Any]:
    """The object of one message. Raises :class:`ValueError` for anything else."""
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("message is not an object")
    return message


_TYPES: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "dict": dict}


def field(message: dict[str, Any], name: str, kind: str, default: Any = None) -> Any:
    """A field of a request with its type checked (bool is not int). Raises :class:`KeeperError`."""
    value = message.get(name, default)
    expected = _TYPES[kind]
    if not isinstance(value, expected) or (kind == "int" and isinstance(value, bool)):
        raise KeeperError("protocol", "bad_config", f"field {name!r} of the request must be {kind}")
    return value
