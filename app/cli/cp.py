"""`slipway cp`: files between a container and here."""

from __future__ import annotations

import base64
import io
import json
import os
import posixpath
import sys

from app.cli.errors import Failure, Usage
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Answer, Engine, quote
from app.cli.output import size

TYPING = False
if TYPING:
    from collections.abc import Iterator
    from typing import Any

_CP = Parser(
    "cp [FLAGS] CONTAINER:PATH PATH|-  or  cp [FLAGS] PATH|- CONTAINER:PATH",
    "Copy files between a container and here; - is a tar on the standard input or output.",
    Flag("archive", short="a", about="keep owners"), Flag("follow-link", short="L", about="the source may be a link"),
    Flag("quiet", short="q", about="say nothing"), least=2, most=2)
#: Go's bits in the mode of X-Docker-Container-Path-Stat
_DIRECTORY, _LINK = 1 << 31, 1 << 27


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    given = _CP.parse(words[1:])
    source, target = (split(word) for word in given.words)
    if source[0] and target[0]:
        raise Usage("files are not copied from one container to another: copy them here first.")
    if not source[0] and not target[0]:
        raise Usage("one of the two must be in a container: CONTAINER:PATH.")
    engine = Engine(address)
    if source[0]:
        _out(engine, source[0], source[1], target[1], given)
    else:
        _in(engine, source[1], target[0], target[1], given)
    return 0


def split(word: str) -> tuple[str, str]:
    """(container, path); no container where *word* is a path of here, as `./a:b` and `/a:b` are."""
    if word == "-" or word.startswith((".", "/")):
        return "", word
    container, colon, path = word.partition(":")
    return (container, path or "/") if colon else ("", word)


def _path_stat(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(answer.headers["x-docker-container-path-stat"]))
    return found


def _stat(engine: Engine, container: str, path: str) -> dict[str, Any] | None:
    """What is at *path* in the container."""
    answer = engine.ask("HEAD", _archive(container), {"path": path}, allowed=(404,))
    answer.connection.close()
    return None if answer.status == 404 else _path_stat(answer)


def _archive(container: str) -> str:
    return f"/containers/{quote(container)}/archive"


# --- out of a container ---------------------------------------------------------------------------------------------

def _out(engine: Engine, container: str, path: str, target: str, given: Options) -> None:
    if given.follow_link:
        found = _stat(engine, container, path)
        if found and found["mode"] & _LINK:
            path = found["linkTarget"]
    if target == "-":
        from app.cli.archive import refuse_terminal, write

        refuse_terminal("")
        write(engine.ask("GET", _archive(container), {"path": path}).pieces(), "")
        return
    answer = engine.ask("GET", _archive(container), {"path": path})
    found = _path_stat(answer)
    folder, name, fresh = _place(target, found["name"], bool(found["mode"] & _DIRECTORY), path)
    from app.cli.copytar import Unpacker

    old = "" if _contents(path) else found["name"]
    unpacker = Unpacker(folder, old, name, owners=given.archive, fresh=fresh)
    total = unpacker.unpack(io.BufferedReader(_Reader(answer.pieces())))
    _say(total, target, given)


def _place(target: str, name: str, directory: bool, path: str) -> tuple[str, str, bool]:
    """(the directory to unpack into, what the entry is called there, whether the directory has just been made; as a
    name "" = the directory itself)."""
    whole = os.path.abspath(target)
    if os.path.isdir(whole):
        return whole, "" if _contents(path) else name, False
    if os.path.lexists(whole) and directory:
        raise Failure(f"{target} is a file, and what comes is a directory.")
    if not directory and target.endswith("/"):
        raise Failure(f"there is no directory {target} to copy into.")
    if not os.path.isdir(os.path.dirname(whole)):
        raise Failure(f"there is no directory {os.path.dirname(whole)} to copy into.")
    if _contents(path):
        os.mkdir(whole)
        return whole, "", True
    return os.path.dirname(whole), os.path.basename(whole), False


def _contents(path: str) -> bool:
    """Whether *path* says "what is in it"."""
    return path == "." or path.endswith("/.")


class _Reader(io.RawIOBase):
    """The pieces of a body as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._pieces, b"")
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


# --- into a container -----------------------------------------------------------------------------------------------

def _in(engine: Engine, source: str, container: str, path: str, given: Options) -> None:
    query = {"noOverwriteDirNonDir": True, "copyUIDGID": given.archive}
    if source == "-":
        from app.cli.archive import pieces_of, reading

        found = _stat(engine, container, path)
        if found and not found["mode"] & _DIRECTORY:
            raise Failure(f"{container}:{path} is no directory, and a tar is unpacked into one.")
        with reading("-") as file:
            engine.ask("PUT", _archive(container), {"path": path, **query}, source=pieces_of(file)).read()
        return
    from app.cli.copytar import pack

    folder, name = _inside(engine, source, container, path, given.follow_link)
    counted = _Count(pack(source, name, follow=given.follow_link))
    engine.ask("PUT", _archive(container), {"path": folder, **query}, source=counted).read()
    _say(counted.total, f"{container}:{path}", given)


def _inside(engine: Engine, source: str, container: str, path: str, follow: bool) -> tuple[str, str]:
    """(the directory of the container to unpack in, what the entry is called)."""
    try:
        is_directory = os.path.isdir(source) if follow or source.endswith("/") else \
            os.path.isdir(source) and not os.path.islink(source)
        os.lstat(source)
    except OSError as error:
        raise Failure(f"{source} cannot be read: {error.strerror}.") from None
    found = _stat(engine, container, path)
    if found and found["mode"] & _LINK:
        path = found["linkTarget"]
        found = _stat(engine, container, path)
    if found and found["mode"] & _DIRECTORY:
        return path, "." if _contents(source) else os.path.basename(os.path.abspath(source))
    if found and is_directory:
        raise Failure(f"{container}:{path} is a file, and {source} is a directory.")
    if path.endswith("/") and not is_directory:
        raise Failure(f"there is no directory {container}:{path} to copy into.")
    path = posixpath.normpath(posixpath.join("/", path))
    # Whether that directory is there, and the container, the engine says when it is written to.
    return posixpath.split(path)


class _Count:
    """Counts what goes by."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self.total = pieces, 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.total += len(piece)
            yield piece


def _say(total: int, target: str, given: Options) -> None:
    if not given.quiet and sys.stderr.isatty():
        print(f"Successfully copied {size(total)} to {target}", file=sys.stderr)


