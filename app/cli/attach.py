"""`slipway attach`, and what run, start -a and exec share of it."""

from __future__ import annotations

import sys

from app.cli.errors import Failure, Refused
from app.cli.flags import Flag, Parser
from app.cli.http import Answer, Engine, quote
from app.cli.terminal import Session, raw_mode, size

TYPING = False
if TYPING:
    from typing import Any

_ATTACH = Parser(
    "attach [FLAGS] CONTAINER", "Connect the terminal to a running container.",
    Flag("no-stdin", about="output only"), Flag("sig-proxy", about="pass signals on to it", default=True),
    Flag("detach-keys", "text", about="leave it running on these keys (ctrl-p,ctrl-q)"), least=1, most=1)


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    given = _ATTACH.parse(words[1:])
    engine, ref = Engine(address), given.words[0]
    found = engine.json("GET", f"/containers/{quote(ref)}/json")
    if not found["State"]["Running"]:
        raise Failure(f"{ref} does not run. Start it and connect in one step with `slipway start -ai {ref}`.")
    if found["State"].get("Paused"):
        raise Failure(f"{ref} is paused. Let it go on first: `slipway unpause {ref}`.")
    tty = found["Config"]["Tty"]
    stdin = found["Config"]["OpenStdin"] and not given.no_stdin
    streams = attach(engine, found["Id"], stdin=stdin, keys=given.detach_keys)
    return follow(engine, found["Id"], streams, wait(engine, found["Id"], "next-exit"),
                  tty=tty, stdin=stdin, keys=given.detach_keys, sig_proxy=given.sig_proxy, started=True)


def attach(engine: Engine, container: str, *, stdin: bool, stdout: bool = True, stderr: bool = True,
           keys: str = "") -> Answer:
    """The container's streams, taken over. *keys* are watched for by the session; the engine must know no others."""
    wanted = {"stream": True, "stdin": stdin, "stdout": stdout, "stderr": stderr, "detachKeys": keys or None}
    return engine.ask("POST", f"/containers/{quote(container)}/attach", wanted, upgrade=True)


def wait(engine: Engine, container: str, condition: str) -> Answer:
    """A wait that the engine has noted when this returns; its result is read later."""
    return engine.ask("POST", f"/containers/{quote(container)}/wait", {"condition": condition})


def exit_code(answer: Answer) -> int:
    """The result of a wait."""
    result = next(answer.lines(), None)
    if not result:
        raise Failure("the engine ended the wait without telling the exit code.", 125)
    reason = (result.get("Error") or {}).get("Message")
    if reason:
        raise Failure(f"the engine could not wait for the container: {reason}", 125)
    return int(result["StatusCode"])


def resizer(engine: Engine, path: str) -> Any:
    """Tells the engine the terminal's size; for a terminal only."""

    def tell() -> None:
        found = size()
        if found:
            try:
                engine.json("POST", f"{path}/resize", {"h": found[0], "w": found[1]})
            except Refused:
                pass  # it has ended meanwhile: nothing is left to resize

    return tell


def follow(engine: Engine, container: str, streams: Answer, result: Answer, *, tty: bool, stdin: bool, keys: str,
           sig_proxy: bool, started: bool) -> int:
    """Stays with a container until it ends (its exit code) or the user detaches (0). *started* False: starts it."""
    path = f"/containers/{quote(container)}"
    tell = resizer(engine, path)

    def pass_on(number: int) -> None:
        try:
            engine.json("POST", f"{path}/kill", {"signal": number})
        except Refused:
            pass  # it ended before the signal came

    session = Session(streams, tty=tty, stdin=stdin, keys=keys)
    if not started:
        try:
            engine.json("POST", f"{path}/start")
        except BaseException:
            streams.connection.close()
            raise
    with raw_mode(tty and stdin):
        if tty:
            tell()
        session.run(on_resize=tell if tty else None, on_signal=pass_on if sig_proxy and not tty else None)
    if session.detached:
        print(file=sys.stderr)
        return 0
    return exit_code(result)


def start_attached(engine: Engine, ref: str, *, stdin: bool, keys: str) -> int:
    """`start -a` and `start -ai`."""
    found = engine.json("GET", f"/containers/{quote(ref)}/json")
    identity, config = found["Id"], found["Config"]
    stdin = stdin and config["OpenStdin"]
    streams = attach(engine, identity, stdin=stdin, keys=keys)
    removed = (found["HostConfig"] or {}).get("AutoRemove")
    result = wait(engine, identity, "removed" if removed else "next-exit")
    return follow(engine, identity, streams, result, tty=config["Tty"], stdin=stdin, keys=keys, sig_proxy=True,
                  started=bool(found["State"]["Running"]))
