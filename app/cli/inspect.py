"""`slipway inspect`, and `inspect` of one kind: container, image, network, volume."""

from __future__ import annotations

import json
import sys

from app.cli.errors import Refused, Usage
from app.cli.flags import Flag, Parser
from app.cli.http import Engine, quote
from app.cli.template import fill

TYPING = False
if TYPING:
    from typing import Any

#: kind -> where one is, in the order in which a name is looked for
_PLACES = {"container": "/containers/{}/json", "image": "/images/{}/json", "network": "/networks/{}",
           "volume": "/volumes/{}"}
_INSPECT = Parser(
    "inspect [FLAGS] NAME...", "Show everything about containers, images, networks or volumes.",
    Flag("format", "text", short="f", about="json, or a template such as {{.State.Status}}"),
    Flag("size", short="s", about="with the sizes of containers"),
    Flag("type", "text", about="only this kind: container, image, network or volume"), least=1)


def main(words: list[str], address: str, kind: str = "") -> int:
    """Runs the verb."""
    given = _INSPECT.parse(words[1:])
    kind = given.type or kind
    if kind and kind not in _PLACES:
        raise Usage(f"--type takes container, image, network or volume, not {kind!r}.")
    engine = Engine(address)
    found, missing = [], []
    for name in given.words:
        one = look_up(engine, name, [kind] if kind else list(_PLACES), given.size)
        found.append(one) if one is not None else missing.append(name)
    if given.format and given.format != "json":
        for one in found:
            print(fill(given.format, one))
    elif given.format == "json":
        print(json.dumps(found, ensure_ascii=False, separators=(",", ":")))
    else:
        print(json.dumps(found, indent=4, ensure_ascii=False))
    sys.stdout.flush()
    for name in missing:
        print(f"slipway: there is no {kind or 'container, image, network or volume'} {name!r}.", file=sys.stderr)
    return 1 if missing else 0


def look_up(engine: Engine, name: str, kinds: list[str], size: bool) -> dict[str, Any] | None:
    """What *name* is among *kinds*, the first that has it."""
    for kind in kinds:
        try:
            found: dict[str, Any] = engine.json("GET", _PLACES[kind].format(quote(name)), {"size": size or None})
            return found
        except Refused as refused:
            # 400: the name cannot be one of this kind ("a/b" is an image's).
            if refused.status not in (400, 404):
                raise
    return None
