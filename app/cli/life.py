"""The verbs that act on containers one by one: start, stop, restart, kill, pause, unpause, rm, rename, wait.

Each container is asked for on its own; one that fails does not keep the others from it, and the exit status tells.
"""

from __future__ import annotations

import sys

from app.cli.errors import Refused, Usage
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Engine, quote

TYPING = False
if TYPING:
    from collections.abc import Callable

_TIME = Flag("time", "number", short="t", about="seconds before it is killed")
_TIMEOUT = Flag("timeout", "number", about="the same")
_SIGNAL = Flag("signal", "text", short="s", about="the signal to send")
_PARSERS = {
    "start": Parser("start [FLAGS] CONTAINER...", "Start containers.",
                    Flag("attach", short="a", about="show its output, end with its exit code"),
                    Flag("interactive", short="i", about="connect the input"),
                    Flag("detach-keys", "text", about="leave it running on these keys (ctrl-p,ctrl-q)"), least=1),
    "stop": Parser("stop [FLAGS] CONTAINER...", "Stop containers.", _TIME, _TIMEOUT, _SIGNAL, least=1),
    "restart": Parser("restart [FLAGS] CONTAINER...", "Restart containers.", _TIME, _TIMEOUT, _SIGNAL, least=1),
    "kill": Parser("kill [FLAGS] CONTAINER...", "Send a signal to containers.", _SIGNAL, least=1),
    "pause": Parser("pause CONTAINER...", "Freeze containers.", least=1),
    "unpause": Parser("unpause CONTAINER...", "Let frozen containers go on.", least=1),
    "rm": Parser("rm [FLAGS] CONTAINER...", "Remove containers.", Flag("force", short="f", about="running ones too"),
                 Flag("volumes", short="v", about="with their anonymous volumes"), least=1),
    "rename": Parser("rename CONTAINER NAME", "Give a container another name.", least=2, most=2),
    "wait": Parser("wait CONTAINER...", "Wait until containers stop; print their exit codes.", least=1),
}


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    verb = words[0]
    given = _PARSERS[verb].parse(words[1:])
    engine = Engine(address)
    if verb == "rename":
        engine.json("POST", f"/containers/{quote(given.words[0])}/rename", {"name": given.words[1]})
        return 0
    if verb == "start" and (given.attach or given.interactive):
        if len(given.words) != 1:
            raise Usage("start -a and -i work on one container.")
        from app.cli.attach import start_attached

        return start_attached(engine, given.words[0], stdin=given.interactive, keys=given.detach_keys)
    # docker's -f means "let it be gone": one that is not there is no failure.
    return each(given.words, lambda ref: _act(engine, verb, ref, given), absent=verb == "rm" and given.force)


def each(refs: list[str], act: Callable[[str], str], *, absent: bool = False) -> int:
    """Calls *act* on each, prints what it returns; 1 where one was refused, which is said at once.

    *absent*: one that is not there is said and is no failure.
    """
    status = 0
    for ref in refs:
        try:
            print(act(ref), flush=True)
        except Refused as refused:
            print(f"slipway: {ref}: {refused}", file=sys.stderr)
            if not (absent and refused.status == 404):
                status = 1
    return status


def _act(engine: Engine, verb: str, ref: str, given: Options) -> str:
    path = f"/containers/{quote(ref)}"
    if verb == "rm":
        engine.json("DELETE", path, {"force": given.force, "v": given.volumes})
    elif verb == "wait":
        return str(engine.json("POST", f"{path}/wait")["StatusCode"])
    elif verb in ("stop", "restart"):
        seconds = given.time if given.time is not None else given.timeout
        engine.json("POST", f"{path}/{verb}", {"t": seconds, "signal": given.signal or None})
    elif verb == "kill":
        engine.json("POST", f"{path}/kill", {"signal": given.signal or None})
    else:
        engine.json("POST", f"{path}/{verb}")
    return ref
