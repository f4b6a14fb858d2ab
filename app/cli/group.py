"""`slipway container VERB` and `slipway image VERB`: the same verbs under the kind that they are for."""

from __future__ import annotations

from importlib import import_module

from app.cli.errors import Usage
from app.cli.verbs import VERBS

_SAME = {
    "container": ("run", "create", "start", "stop", "restart", "kill", "pause", "unpause", "rm", "rename", "wait",
                  "exec", "attach", "logs", "top", "stats", "port", "cp", "commit", "diff", "export", "update"),
    "image": ("pull", "push", "tag", "history", "save", "load", "import"),
}
_OTHER = {"container": {"ls": "ps", "list": "ps", "ps": "ps", "remove": "rm"},
          "image": {"ls": "images", "list": "images", "rm": "rmi", "remove": "rmi"}}


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    group, verb = words[0], words[1] if len(words) > 1 else ""
    if verb == "inspect":
        from app.cli.inspect import main as inspect

        return inspect(words[1:], address, group)
    if verb == "prune":
        from app.cli.prune import main as prune

        return prune(["prune", f"{group}s", *words[2:]], address)
    name = _OTHER[group].get(verb) or (verb if verb in _SAME[group] else "")
    if name not in VERBS:
        known = sorted({*(verb for verb in _SAME[group] if verb in VERBS), *_OTHER[group], "inspect", "prune"})
        raise Usage(f"`slipway {group}` has {', '.join(known)}; each shows its flags with --help.")
    return int(import_module(VERBS[name][0]).main([name, *words[2:]], address))
