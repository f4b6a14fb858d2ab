"""`slipway save`, `load` and `import`: images as tars, read and written with the user's rights."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile

from app.cli.errors import Failure, Usage
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Engine
from app.cli.progress import follow

TYPING = False
if TYPING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

_SAVE = Parser("save [FLAGS] IMAGE...", "Write images into a tar.",
               Flag("output", "text", short="o", about="the file; without it the standard output"),
               Flag("platform", "text", about="not supported"), least=1)
_LOAD = Parser("load [FLAGS]", "Read images from a tar.",
               Flag("input", "text", short="i", about="the file; without it the standard input"),
               Flag("quiet", short="q", about="no progress"), Flag("platform", "text", about="not supported"), most=0)
_IMPORT = Parser("import [FLAGS] FILE|- [NAME[:TAG]]", "Make an image from the tar of a root file system.",
                 Flag("change", "list", short="c", about="an instruction of a Dockerfile, such as CMD [\"sh\"]"),
                 Flag("message", "text", short="m", about="a comment"),
                 Flag("platform", "text", about="OS/ARCHITECTURE of what is in it"), least=1, most=2)
_PIECE = 1 << 20


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    verb, engine = words[0], Engine(address)
    if verb == "save":
        return _save(_SAVE.parse(words[1:]), engine)
    if verb == "load":
        return _load(_LOAD.parse(words[1:]), engine)
    return _import(_IMPORT.parse(words[1:]), engine)


def _save(given: Options, engine: Engine) -> int:
    _no_platform(given)
    refuse_terminal(given.output)
    write(engine.ask("GET", "/images/get", {"names": given.words}).pieces(), given.output)
    return 0


def refuse_terminal(output: str) -> None:
    """Raises Usage where a tar would go to a screen."""
    if not output and sys.stdout.isatty():
        raise Usage("a tar is not written to a terminal. Name a file with -o, or send it to a program.")


def _no_platform(given: Options) -> None:
    if given.platform:
        raise Usage("--platform is not supported here yet: an image is kept for one platform only.", 125)


def write(pieces: Iterable[bytes], path: str) -> None:
    """All of *pieces* into the file *path* (by rename, so that no half of it is ever there), or to the output."""
    if not path or path == "-":
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # /dev/null, a pipe
            with open(path, "wb") as out:
                out.writelines(pieces)
            return
        _write_file(pieces, path)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}.") from None


def _write_file(pieces: Iterable[bytes], path: str) -> None:
    fd, temporary = tempfile.mkstemp(prefix=".slipway-", dir=os.path.dirname(path) or ".")
    try:
        with open(fd, "wb") as out:
            out.writelines(pieces)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def reading(path: str) -> Iterator[BinaryIO]:
    """The file *path*, or the standard input for "" and "-"."""
    if path in ("", "-"):
        if sys.stdin.isatty():
            raise Usage("a tar is not read from a terminal. Name a file, or send one in.")
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; only its opening is guarded
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}.") from None
    with file:
        yield file


def pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """*file* in pieces."""
    while piece := file.read(_PIECE):
        yield piece


def _load(given: Options, engine: Engine) -> int:
    _no_platform(given)
    # Progress bars belong to a terminal; elsewhere the engine is asked for the result only.
    quiet = given.quiet or not sys.stdout.isatty()
    with reading(given.input) as file:
        answer = engine.ask("POST", "/images/load", {"quiet": quiet}, source=pieces_of(file),
                            headers={"Content-Type": "application/x-tar"})
        follow(answer.lines(), sys.stdout)
    return 0


def _import(given: Options, engine: Engine) -> int:
    source, *names = given.words
    if source.startswith(("http://", "https://")):
        raise Usage("an import takes a file, or - for the standard input. Fetch it first: "
                    f"`curl {source} | slipway import - NAME`.")
    query = {"fromSrc": "-", "changes": given.change, "message": given.message or None,
             "platform": given.platform or None}
    if names:
        from app.cli.pull import parse

        target = parse(names[0])
        query |= {"repo": target.familiar_name, "tag": target.tag or None}
    with reading(source) as file:
        follow(engine.ask("POST", "/images/create", query, source=pieces_of(file)).lines(), sys.stdout)
    return 0
