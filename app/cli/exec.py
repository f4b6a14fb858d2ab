"""`slipway exec`."""

from __future__ import annotations

import os

from app.cli.attach import resizer
from app.cli.errors import Failure, Usage
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Engine, quote
from app.cli.terminal import Session, raw_mode, size

TYPING = False
if TYPING:
    from typing import Any

_EXEC = Parser(
    "exec [FLAGS] CONTAINER COMMAND [ARGUMENT...]", "Run a program in a running container.",
    Flag("interactive", short="i", about="keep the input open"), Flag("tty", short="t", about="give it a terminal"),
    Flag("detach", short="d", about="do not wait for it"),
    Flag("detach-keys", "text", about="leave it running on these keys (ctrl-p,ctrl-q)"),
    Flag("env", "list", short="e", about="a variable: NAME=VALUE, or NAME as it is here"),
    Flag("env-file", "list", about="a file of variables, one a line"),
    Flag("privileged", about="with all capabilities"), Flag("user", "text", short="u", about="NAME|UID[:GROUP|GID]"),
    Flag("workdir", "text", short="w", about="the directory that it starts in"), intermixed=False, least=2)


def main(words: list[str], address: str) -> int:
    """Runs the verb; the program's exit code."""
    given = _EXEC.parse(words[1:])
    engine = Engine(address)
    if given.tty and given.interactive and not given.detach and not os.isatty(0):
        raise Usage("the input is no terminal, and -t with -i needs one. Leave -t out, or call this from a terminal.")
    body = exec_body(given)
    made = engine.json("POST", f"/containers/{quote(given.words[0])}/exec", body=body)["Id"]
    path = f"/exec/{made}"
    if given.detach:
        engine.json("POST", f"{path}/start", body={"Detach": True, "Tty": given.tty})
        return 0
    found = size() if given.tty else None
    start = {"Detach": False, "Tty": given.tty, "ConsoleSize": list(found) if found else None}
    streams = engine.ask("POST", f"{path}/start", body=start, upgrade=True)
    session = Session(streams, tty=given.tty, stdin=given.interactive, keys=given.detach_keys)
    tell = resizer(engine, path) if given.tty else None
    with raw_mode(given.tty and given.interactive):
        session.run(on_resize=tell)
    if session.detached:
        return 0
    code = engine.json("GET", f"{path}/json")["ExitCode"]
    if code is None:
        raise Failure("the connection ended before the program did; it may still run.")
    return int(code)


def exec_body(given: Options) -> dict[str, Any]:
    """The body of POST /containers/{id}/exec."""
    from app.cli.createbody import variables

    streams = not given.detach
    return {"User": given.user, "Privileged": given.privileged, "Tty": given.tty, "WorkingDir": given.workdir,
            "AttachStdin": given.interactive and streams, "AttachStdout": streams, "AttachStderr": streams,
            "DetachKeys": given.detach_keys, "Env": variables(given, os.environ), "Cmd": given.words[1:]}
