"""`slipway run` and `slipway create`."""

from __future__ import annotations

import contextlib
import os
import sys

from app.cli.createbody import console, create_body
from app.cli.errors import Failure, Refused, Unreachable, Usage
from app.cli.http import Engine
from app.cli.runflags import CREATE, RUN

TYPING = False
if TYPING:
    from collections.abc import Iterator
    from typing import Any

    from app.cli.flags import Options

#: The exit status when no container came to run; 126 and 127 say that its program could not.
FAILED, NOT_PERMITTED, NOT_FOUND = 125, 126, 127
_POLICIES = ("always", "missing", "never")


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    if words[0] == "create":
        given = CREATE.parse(words[1:])
        print(create(Engine(address), given, create_body(given, os.environ), 1))
        return 0
    try:
        return _run(RUN.parse(words[1:]), Engine(address))
    except Failure as failure:
        # A container that ran gives its own code; whatever kept it from running gives this one.
        if isinstance(failure, Refused | Unreachable):
            failure.code = failure.code if failure.code > 1 else FAILED
        raise


def _run(given: Options, engine: Engine) -> int:
    body = create_body(given, os.environ)
    if given.detach:
        if given.attach:
            raise Usage("--attach and --detach contradict each other.")
        body |= {"AttachStdin": False, "AttachStdout": False, "AttachStderr": False, "StdinOnce": False}
    elif given.tty and body["AttachStdin"] and not os.isatty(0):
        raise Usage("the input is no terminal, and -t with -i needs one. Leave -t out, or call this from a terminal.")
    body["HostConfig"]["ConsoleSize"] = console(given)
    container = create(engine, given, body, FAILED)
    shown = body["AttachStdout"] or body["AttachStderr"]
    if not shown:
        print(container, flush=True)
    try:
        if not (shown or body["AttachStdin"]):
            engine.json("POST", f"/containers/{container}/start")
            return 0
        return _attached(engine, given, body, container)
    except Refused as refused:
        refused.code = start_code(str(refused))
        raise


def _attached(engine: Engine, given: Options, body: dict[str, Any], container: str) -> int:
    from app.cli.attach import attach, follow, wait

    streams = attach(engine, container, stdin=body["AttachStdin"], stdout=body["AttachStdout"],
                     stderr=body["AttachStderr"], keys=given.detach_keys)
    result = wait(engine, container, "removed" if given.rm else "next-exit")
    return follow(engine, container, streams, result, tty=given.tty, stdin=body["AttachStdin"], keys=given.detach_keys,
                  sig_proxy=given.sig_proxy, started=False)


def start_code(reason: str) -> int:
    """The exit status for a start that failed, as shells have them: what the engine says tells which."""
    if "executable file not found" in reason or "no such file or directory" in reason:
        return NOT_FOUND
    if "permission denied" in reason or "is a directory" in reason:
        return NOT_PERMITTED
    return FAILED


def create(engine: Engine, given: Options, body: dict[str, Any], code: int) -> str:
    """Creates the container, pulls its image where that is missing or asked for; the ID. *code*: of a failed pull."""
    from app.cli.pull import refuse_trust

    if given.pull not in _POLICIES:
        raise Usage(f"--pull takes always, missing or never, not {given.pull!r}.", FAILED)
    refuse_trust(given.disable_content_trust)
    with _id_file(given.cidfile) as note:
        if given.pull == "always":
            _pull(engine, given, body["Image"], code)
        try:
            made = _create(engine, given, body)
        except Refused as refused:
            if refused.status != 404 or "No such image" not in str(refused) or given.pull != "missing":
                raise
            _pull(engine, given, body["Image"], code, missing=True)
            made = _create(engine, given, body)
        note.append(made["Id"])
    for warning in made.get("Warnings") or []:
        print(f"WARNING: {warning}", file=sys.stderr)
    return str(made["Id"])


def _create(engine: Engine, given: Options, body: dict[str, Any]) -> dict[str, Any]:
    query = {"name": given.name or None, "platform": given.platform or None}
    found: dict[str, Any] = engine.json("POST", "/containers/create", query, body)
    return found


def _pull(engine: Engine, given: Options, image: str, code: int, *, missing: bool = False) -> None:
    from app.cli.pull import parse, pull

    reference = parse(image, code)
    if missing and not given.quiet:
        print(f"Unable to find image '{reference.with_default_tag().familiar}' locally", file=sys.stderr, flush=True)
    pull(engine, reference, sys.stderr, platform=given.platform, quiet=given.quiet, code=code)


@contextlib.contextmanager
def _id_file(path: str) -> Iterator[list[str]]:
    """Takes *path* before the container is made and writes into it what the list then holds; gone if that failed."""
    note: list[str] = []
    if not path:
        yield note
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise Usage(f"--cidfile {path} is there already: it belongs to another container. Remove it, or name another.",
                    FAILED) from None
    except OSError as error:
        raise Usage(f"--cidfile {path} cannot be written: {error.strerror}.", FAILED) from None
    try:
        yield note
        os.write(fd, "".join(note).encode())
    finally:
        os.close(fd)
        if not note:
            os.unlink(path)
