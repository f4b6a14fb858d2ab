"""`slipway commit`, `diff` and `export`: what became of a container's files."""

from __future__ import annotations

from app.cli.flags import Flag, Parser
from app.cli.http import Engine, quote

_COMMIT = Parser(
    "commit [FLAGS] CONTAINER [NAME[:TAG]]", "Make an image from a container's files.",
    Flag("author", "text", short="a", about="who made it"), Flag("message", "text", short="m", about="a comment"),
    Flag("change", "list", short="c", about="an instruction of a Dockerfile, such as CMD [\"sh\"]"),
    Flag("pause", short="p", about="freeze the container meanwhile", default=True), least=1, most=2)
_DIFF = Parser("diff CONTAINER", "Show which files a container has added (A), changed (C) and deleted (D).", least=1,
               most=1)
_EXPORT = Parser("export [FLAGS] CONTAINER", "Write a container's files into a tar.",
                 Flag("output", "text", short="o", about="the file; without it the standard output"), least=1, most=1)
_KINDS = "CAD"


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    verb, engine = words[0], Engine(address)
    if verb == "commit":
        return _commit(words[1:], engine)
    if verb == "diff":
        container = _DIFF.parse(words[1:]).words[0]
        for change in engine.json("GET", f"/containers/{quote(container)}/changes") or []:
            print(f"{_KINDS[change['Kind']]} {change['Path']}")
        return 0
    from app.cli.archive import refuse_terminal, write

    given = _EXPORT.parse(words[1:])
    refuse_terminal(given.output)
    write(engine.ask("GET", f"/containers/{quote(given.words[0])}/export").pieces(), given.output)
    return 0


def _commit(words: list[str], engine: Engine) -> int:
    given = _COMMIT.parse(words)
    query = {"container": given.words[0], "comment": given.message or None, "author": given.author or None,
             "pause": given.pause, "changes": given.change}
    if len(given.words) == 2:
        from app.cli.pull import parse

        target = parse(given.words[1])
        query |= {"repo": target.familiar_name, "tag": target.tag or None}
    print(engine.json("POST", "/commit", query, {})["Id"])
    return 0
