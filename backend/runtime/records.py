"""What the keeper writes down in ``<exec-root>/containers/<id>/``: enough to know after a crash what was running.

``state.json`` when a container is made, ``exit.json`` when it ends. Both appear by rename, so a reader sees all or
nothing. They live below /run: gone after a boot, which is right, since the processes are gone too.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

from backend.runtime.protocol import Exit


@dataclass(frozen=True, slots=True)
class State:
    """A container as it was made. *birth*: its start time in the kernel's clock, which with the pid is unique."""

    id: str
    pid: int
    birth: int
    cgroup: str
    flags: int
    bundle: str
    started_at: int
    tty: bool
    stdin_once: bool
    log: tuple[str, str, int, int]
    pipes: tuple[int, ...] = ()  # inodes of its output pipes: by them they are found again (see adoption)


def birth(pid: int) -> int:
    """Start time of a process in clock ticks since boot; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def zombie_status(pid: int, born: int) -> int | None:
    """The wait status of a dead process that nobody has collected yet (the last field of its stat); None otherwise."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[49]) if fields[0] == b"Z" and int(fields[19]) == born else None


def _write(path: str, text: str) -> None:
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
    os.replace(temporary, path)


def _known(data: dict[str, Any]) -> dict[str, Any]:
    """Without what a newer keeper wrote besides."""
    return {name: data[name] for name in State.__slots__ if name in data}


class Records:
    """The directory of all containers' records."""

    def __init__(self, exec_root: str) -> None:
        self._root = f"{exec_root}/containers"
        os.makedirs(self._root, mode=0o700, exist_ok=True)

    def directory(self, id: str) -> str:
        """Where one container's records are."""
        return f"{self._root}/{id}"

    def save_state(self, state: State) -> None:
        """Writes ``state.json``; an older life's ``exit.json`` goes."""
        directory = self.directory(state.id)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        try:
            os.unlink(f"{directory}/exit.json")
        except FileNotFoundError:
            pass
        _write(f"{directory}/state.json", json.dumps(asdict(state)))

    def save_exit(self, end: Exit) -> None:
        """Writes ``exit.json``."""
        _write(f"{self.directory(end.id)}/exit.json", json.dumps(end.to_wire()))

    def forget(self, id: str) -> None:
        """Removes both; what others keep in the directory stays."""
        for name in ("state.json", "exit.json", "state.json.new", "exit.json.new"):
            try:
                os.unlink(f"{self.directory(id)}/{name}")
            except FileNotFoundError:
                pass
        try:
            os.rmdir(self.directory(id))
        except OSError:
            pass  # the helper keeps its bundle here

    def load(self) -> list[tuple[State, Exit | None]]:
        """All containers on record; one that cannot be read is left out (its cgroup still tells the engine)."""
        found = []
        for id in sorted(os.listdir(self._root)):
            try:
                with open(f"{self.directory(id)}/state.json", encoding="utf-8") as file:
                    data = json.load(file)
                state = State(**{**_known(data), "log": tuple(data["log"]), "pipes": tuple(data.get("pipes", ()))})
            except (OSError, ValueError, TypeError, KeyError):
                continue
            found.append((state, self._load_exit(id)))
        return found

    def _load_exit(self, id: str) -> Exit | None:
        try:
            with open(f"{self.directory(id)}/exit.json", encoding="utf-8") as file:
                return Exit.from_wire(json.load(file))
        except (OSError, ValueError, TypeError):
            return None
