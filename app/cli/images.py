"""`slipway images`, `tag`, `rmi` and `history`."""

from __future__ import annotations

import sys

from app.cli.errors import Refused
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Engine, quote
from app.cli.output import ago, cut, filters, short_id, show, size, when

TYPING = False
if TYPING:
    from collections.abc import Iterator
    from typing import Any

_NO_TRUNC = Flag("no-trunc", about="nothing shortened")
_QUIET = Flag("quiet", short="q", about="IDs only")
_FORMAT = Flag("format", "text", about="table, json, or a template such as {{.ID}}")
_IMAGES = Parser(
    "images [FLAGS] [REPOSITORY[:TAG]]", "List images.", Flag("all", short="a", about="intermediate ones too"),
    Flag("digests", about="with digests"), Flag("filter", "list", short="f", about="KEY=VALUE"), _NO_TRUNC, _QUIET,
    _FORMAT, Flag("check", about="hash all of them again and mend what is broken"), most=1)
_CONVERT = Parser(
    "images convert IMAGE NAME[:TAG]", "Make an image once more, in a form that runs before it has arrived (eStargz): "
    "push it, and `slipway pull --lazy` fetches first what its first process reads.", least=2, most=2)
_TAG = Parser("tag IMAGE NAME[:TAG]", "Give an image another name.", least=2, most=2)
_RMI = Parser(
    "rmi [FLAGS] IMAGE...", "Remove images.", Flag("force", short="f", about="although containers use them"),
    Flag("no-prune", about="keep parents without a name"), least=1)
_HISTORY = Parser(
    "history [FLAGS] IMAGE", "Show the layers of an image.", Flag("human", short="H", about="sizes and times in words",
                                                                default=True), _NO_TRUNC, _QUIET, _FORMAT,
    least=1, most=1)
_COLUMNS = [("REPOSITORY", "Repository"), ("TAG", "Tag"), ("DIGEST", "Digest"), ("IMAGE ID", "ID"),
            ("CREATED", "CreatedSince"), ("SIZE", "Size")]
_STEPS = [("IMAGE", "ID"), ("CREATED", "CreatedSince"), ("CREATED BY", "CreatedBy"), ("SIZE", "Size"),
          ("COMMENT", "Comment")]
_NONE = "<none>"


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    verb, engine = words[0], Engine(address)
    if words[:2] == ["images", "convert"] and len(words) > 2:
        return _convert(_CONVERT.parse(words[2:]), engine)
    if verb == "images":
        return _list(_IMAGES.parse(words[1:]), engine)
    if verb == "history":
        return _history(_HISTORY.parse(words[1:]), engine)
    if verb == "rmi":
        return _remove(_RMI.parse(words[1:]), engine)
    from app.cli.pull import parse

    given = _TAG.parse(words[1:])
    target = parse(given.words[1]).with_default_tag()
    engine.json("POST", f"/images/{quote(given.words[0])}/tag", {"repo": target.familiar_name, "tag": target.tag})
    return 0


def _check(engine: Engine) -> int:
    """Verifies the store. 1 where something stays broken."""
    from app.cli.progress import follow

    report = follow(engine.ask("POST", "/slipway/images/check", {"repair": True}).lines(), sys.stdout, quiet=True)[-1]
    for one in report["Problems"]:
        done = one["Repaired"] or f"NOT REPAIRED{': ' if one['Reason'] else ''}{one['Reason']}"
        print(f"{one['Image']}: {one['Digest']} was {one['Problem']}: {done}")
    left = sum(not one["Repaired"] for one in report["Problems"])
    print(f"{report['Blobs']} blobs ({size(report['Size'])}) checked: "
          + (f"{len(report['Problems'])} broken, {left} of them still" if report["Problems"] else "all are whole"))
    return 1 if left else 0


def _convert(given: Options, engine: Engine) -> int:
    image, target = given.words
    print(engine.json("POST", "/slipway/images/convert", {"image": image, "target": target})["Id"])
    return 0


def _list(given: Options, engine: Engine) -> int:
    if given.check:
        return _check(engine)
    wanted = filters(given.filter) or {}
    if given.words:
        wanted.setdefault("reference", []).append(given.words[0])
    found = engine.json("GET", "/images/json", {"all": given.all, "filters": wanted or None, "digests": given.digests})
    found.sort(key=lambda image: -image["Created"])
    if given.quiet and not given.format:
        for image in found:
            print(image["Id"] if given.no_trunc else short_id(image["Id"]))
        return 0
    rows = [row for image in found for row in rows_of(image, given.digests, given.no_trunc)]
    columns = _COLUMNS if given.digests else [column for column in _COLUMNS if column[1] != "Digest"]
    show(rows, columns, given.format)
    return 0


def rows_of(image: dict[str, Any], digests: bool, whole: bool) -> Iterator[dict[str, str]]:
    """A row for each name of an image; without *digests* a repository that has only a digest has no tag."""
    tags = [name.rpartition(":") for name in image.get("RepoTags") or [] if name != "<none>:<none>"]
    refs = [name.partition("@") for name in image.get("RepoDigests") or [] if name != "<none>@<none>"]
    names = []
    for repository, _, tag in tags:
        known = [digest for name, _, digest in refs if name == repository]
        names += [(repository, tag, digest) for digest in (known or [_NONE])[:None if digests else 1]]
    tagged = {repository for repository, _, _ in tags}
    names += [(name, _NONE, digest) for name, _, digest in refs if name not in tagged]
    for repository, tag, digest in names or [(_NONE, _NONE, _NONE)]:
        yield {"Repository": repository, "Tag": tag, "Digest": digest,
               "ID": image["Id"] if whole else short_id(image["Id"]), "CreatedSince": ago(image["Created"]),
               "CreatedAt": when(image["Created"]), "Size": size(image["Size"]),
               "Containers": "N/A" if image.get("Containers", -1) < 0 else str(image["Containers"]),
               "SharedSize": "N/A" if image.get("SharedSize", -1) < 0 else size(image["SharedSize"]),
               "UniqueSize": "N/A", "VirtualSize": size(image["Size"])}


def _remove(given: Options, engine: Engine) -> int:
    status = 0
    for name in given.words:
        try:
            done = engine.json("DELETE", f"/images/{quote(name)}", {"force": given.force, "noprune": given.no_prune})
        except Refused as refused:
            print(f"slipway: {name}: {refused}", file=sys.stderr)
            status = 0 if given.force and refused.status == 404 else 1
            continue
        for item in done:
            print(f"Deleted: {item['Deleted']}" if item.get("Deleted") else f"Untagged: {item['Untagged']}")
    return status


def _history(given: Options, engine: Engine) -> int:
    found = engine.json("GET", f"/images/{quote(given.words[0])}/history")
    if given.quiet and not given.format:
        for step in found:
            print(step["Id"] if given.no_trunc else short_id(step["Id"]))
        return 0
    show([_step(step, given) for step in found], _STEPS, given.format)
    return 0


def _step(step: dict[str, Any], given: Options) -> dict[str, str]:
    command = step["CreatedBy"].replace("\t", " ")
    return {"ID": step["Id"] if given.no_trunc else short_id(step["Id"]),
            "CreatedSince": ago(step["Created"]) if given.human else when(step["Created"], rfc=True),
            "CreatedAt": when(step["Created"], rfc=True),
            "CreatedBy": command if given.no_trunc else cut(command, 45),
            "Size": size(step["Size"]) if given.human else str(step["Size"]), "Comment": step.get("Comment") or ""}
