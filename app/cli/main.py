"""The command line's door: global flags, the verb, and errors as words and exit codes.

Nothing here or below imports aiohttp, dataclasses or argparse: `slipway ps` is over before those are loaded.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from app.cli.errors import Failure, Usage
from app.cli.verbs import VERBS

DEFAULT_HOST = "unix:///run/slipway/slipway.sock"
#: How a program ends that was interrupted, as shells count.
INTERRUPTED = 130


def main(argv: list[str]) -> int:
    """Runs ``[--host SOCKET] VERB ...``; the exit status."""
    try:
        address, words = _globals(argv)
        if not words or words[0] in ("-h", "--help", "help"):
            print(usage())
            return 0
        if words[0] in ("-v", "--version"):
            words = ["version", "--format", "Slipway version {{.Client.Version}}", "--client"]
        found = VERBS.get(words[0])
        if found is None:
            raise Usage(f"slipway has no verb {words[0]!r}. `slipway --help` lists what there is.")
        return int(import_module(found[0]).main(words, address))
    except Failure as failure:
        sys.stdout.flush()
        print(f"slipway: {failure}", file=sys.stderr)
        return failure.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _globals(argv: list[str]) -> tuple[str, list[str]]:
    address = os.environ.get("SLIPWAY_HOST") or DEFAULT_HOST
    at = 0
    while at < len(argv):
        word = argv[at]
        if word in ("-H", "--host"):
            if at + 1 == len(argv):
                raise Usage(f"{word} needs the engine's address, such as {DEFAULT_HOST}.")
            address = argv[at + 1]
            at += 2
        elif word.startswith("--host="):
            address = word.removeprefix("--host=")
            at += 1
        else:
            break
    return address, argv[at:]


def usage() -> str:
    """The list of verbs."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {about}" for name, (_, about) in VERBS.items())
    return f"""usage: slipway                            open the window
       slipway [-H unix://SOCKET] VERB ...   from the command line

{verbs}

`slipway VERB --help` shows a verb's flags. The engine is found at --host, else at SLIPWAY_HOST, else at
{DEFAULT_HOST}."""
