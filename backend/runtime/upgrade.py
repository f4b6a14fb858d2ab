"""A keeper becomes a newer one under running containers: it executes the new program over itself.

The process stays the same, so it stays the containers' parent and their exit codes stay known; its descriptors stay
open, so no pipe breaks and its helper stays connected. What only its memory knows goes through a memory file as JSON,
which a newer version reads leniently: unknown keys are ignored, missing ones have defaults. What is on disk
(:mod:`backend.runtime.records`) is read as after any start.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from backend.runtime.protocol import KeeperError


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a keeper gets from the one it was. Descriptors are numbers that were kept open."""

    listener: int
    lock: int
    connections: list[int] = field(default_factory=list)
    asker: int = -1  # the connection that awaits the answer, and to which request
    number: Any = None
    nofile: tuple[int, int] = (0, 0)
    processes: list[dict[str, Any]] = field(default_factory=list)
    entrusted: dict[str, list[int]] = field(default_factory=dict)

    def descriptors(self) -> set[int]:
        """All of them."""
        kept = {self.listener, self.lock, *self.connections, *(fd for fds in self.entrusted.values() for fd in fds)}
        for one in self.processes:
            kept.update(one["fds"].values())
            kept.update(client["fd"] for client in one["clients"])
        return kept


def build_id() -> str:
    """Changes whenever the keeper's code does."""
    here = os.path.dirname(os.path.abspath(__file__))
    folders = (here, f"{os.path.dirname(here)}/logs")
    names = [f"{at}/{name}" for at in folders for name in sorted(os.listdir(at)) if name.endswith(".py")]
    total = zlib.crc32(sys.version.encode())
    for name in names:
        with open(name, "rb") as file:
            total = zlib.crc32(file.read(), total)
    return f"{total:08x}"


def pass_on(given: Inherited, exec_root: str, command: dict[str, Any], executable: int) -> NoReturn:
    """Executes the program of *command* with the open file *executable*. Raises :class:`KeeperError` if it cannot.

    *command*: ``argv0`` (by which the interpreter finds its library), ``program``, ``build``.
    """
    memory = os.memfd_create("slipway-keeper", 0)
    kept = given.descriptors() | {memory}
    try:
        os.write(memory, json.dumps(asdict(given)).encode())
        for fd in kept:
            os.set_inheritable(fd, True)
        arguments = [command["argv0"], "-I", "-S", command["program"], "--exec-root", exec_root,
                     "--inherit", str(memory), "--build", command["build"]]  # fmt: skip
        os.execve(f"/proc/self/fd/{executable}", arguments, {})  # noqa: S606 - the point of it
    except OSError as error:
        for fd in kept:
            os.set_inheritable(fd, False)
        os.close(memory)
        raise KeeperError("upgrade", "other", f"{command['program']}: {error.strerror}", error.errno) from error


def receive(memory: int) -> Inherited:
    """In the new program: what it was given. The descriptors are close-on-exec again."""
    with os.fdopen(memory, "rb") as file:
        file.seek(0)
        data = json.load(file)
    known = {name: data[name] for name in Inherited.__slots__ if name in data}
    given = Inherited(**{**known, "nofile": tuple(known["nofile"])})
    for fd in given.descriptors():
        os.set_inheritable(fd, False)
    return given
