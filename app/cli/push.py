"""`slipway push` and `slipway search`."""

from __future__ import annotations

import sys

from app.cli.errors import Usage
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Engine, quote
from app.cli.output import cut, filters, show
from app.cli.progress import follow
from app.cli.pull import auth_headers, full, parse, refuse_trust

_PUSH = Parser(
    "push [FLAGS] IMAGE[:TAG]", "Send an image to its registry.",
    Flag("all-tags", short="a", about="all names of the repository"), Flag("quiet", short="q", about="no progress"),
    Flag("platform", "text", about="OS/ARCHITECTURE"),
    Flag("disable-content-trust", about="images are not signed by this", default=True), least=1, most=1)
_SEARCH = Parser(
    "search [FLAGS] WORD", "Look for images in a registry.", Flag("filter", "list", short="f", about="KEY=VALUE"),
    Flag("limit", "number", about="at most so many"), Flag("no-trunc", about="nothing shortened"),
    Flag("format", "text", about="table, json, or a template"), least=1, most=1)
_COLUMNS = [("NAME", "Name"), ("DESCRIPTION", "Description"), ("STARS", "StarCount"), ("OFFICIAL", "IsOfficial")]


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    if words[0] == "search":
        return _search(_SEARCH.parse(words[1:]), Engine(address))
    given = _PUSH.parse(words[1:])
    refuse_trust(given.disable_content_trust)
    reference = parse(given.words[0])
    if reference.digest or (given.all_tags and reference.tag):
        raise Usage("a tag cannot be pushed together with --all-tags." if given.all_tags else
                    "an image is pushed by its name and tag, not by its digest.")
    if not reference.tag and not given.all_tags:
        reference = reference.with_default_tag()
        if not given.quiet:
            print(f"Using default tag: {reference.tag}", flush=True)
    # The engine wants the header even where there is no login: "e30=" is {}.
    headers = auth_headers(full(reference)) or {"X-Registry-Auth": "e30="}
    answer = Engine(address).ask("POST", f"/images/{quote(reference.familiar_name)}/push", {
        "tag": None if given.all_tags else reference.tag, "platform": given.platform or None}, headers=headers)
    follow(answer.lines(), sys.stdout, quiet=given.quiet)
    if given.quiet:
        print(full(reference))
    return 0


def _search(given: Options, engine: Engine) -> int:
    word = given.words[0]
    host = word.partition("/")[0]
    headers = auth_headers(f"{host}/any" if "." in host or ":" in host else "any")
    answer = engine.ask("GET", "/images/search", {
        "term": word, "limit": given.limit, "filters": filters(given.filter)}, headers=headers)
    import json

    found = json.loads(answer.read())
    rows = []
    for one in sorted(found, key=lambda one: -one["star_count"]):
        about = (one.get("description") or "").replace("\n", " ").replace("\r", " ")
        rows.append({"Name": one["name"], "Description": about if given.no_trunc else cut(about, 45),
                     "StarCount": str(one["star_count"]), "IsOfficial": "[OK]" if one.get("is_official") else ""})
    show(rows, _COLUMNS, given.format)
    return 0
