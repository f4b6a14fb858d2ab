"""`slipway pull`, and the pull that `run` and `create` do for an image that is not there."""

from __future__ import annotations

import os
import sys

from app.cli.errors import Usage
from app.cli.flags import Flag, Parser
from app.cli.http import Engine
from app.cli.progress import follow

TYPING = False
if TYPING:
    from typing import TextIO

    from backend.spec.reference import Reference

_PULL = Parser(
    "pull [FLAGS] IMAGE[:TAG|@DIGEST]", "Fetch an image from a registry.",
    Flag("quiet", short="q", about="print only the image's name"),
    Flag("platform", "text", about="OS/ARCHITECTURE, where the image is there for several"),
    Flag("lazy", about="be done as soon as it can be run, if its form allows that (see `slipway images convert`)"),
    Flag("all-tags", short="a", about="all tags of the repository"),
    Flag("disable-content-trust", about="images are not checked for signatures", default=True), least=1, most=1)


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    given = _PULL.parse(words[1:])
    refuse_trust(given.disable_content_trust)
    reference = parse(given.words[0])
    named = reference.tag or reference.digest
    if given.all_tags and named:
        raise Usage("tag can't be used with --all-tags/-a")
    if not given.all_tags and not named and not given.quiet:
        print("Using default tag: latest", flush=True)
    pull(Engine(address), reference, sys.stdout, platform=given.platform, quiet=given.quiet, lazy=given.lazy,
         every=given.all_tags)
    print(reference.repository if given.all_tags else full(reference))
    return 0


def refuse_trust(disabled: bool) -> None:
    """Raises Usage where Docker Content Trust is asked for, which the docker client has and we have not."""
    if not disabled:
        raise Usage("--disable-content-trust=false is not supported: Docker Content Trust is the docker client's. "
                    "Which signed images may run here is for the engine's policy to say (`slipway trust policy`).", 125)


def parse(text: str, code: int = 1) -> Reference:
    """*text* as a reference of an image, without a tag where none is said."""
    from backend.errors import InvalidArgument
    from backend.spec import reference

    try:
        return reference.parse(text)
    except InvalidArgument as error:
        raise Usage(str(error), code) from None


def full(reference: Reference) -> str:
    """The whole name: ``docker.io/library/busybox:latest``."""
    whole = reference.with_default_tag()
    return f"{whole.repository}{f':{whole.tag}' if whole.tag else ''}{f'@{whole.digest}' if whole.digest else ''}"


def pull(engine: Engine, reference: Reference, out: TextIO, *, platform: str = "", quiet: bool = False,
         code: int = 1, lazy: bool = False, every: bool = False) -> None:
    """Pulls with the user's credentials, showing the progress on *out*. *every*: all tags of the repository."""
    whole = reference if every else reference.with_default_tag()
    answer = engine.ask("POST", "/images/create", {
        "fromImage": whole.repository, "tag": whole.digest or whole.tag or None, "platform": platform or None,
        "lazy": lazy or None,
    }, headers=auth_headers(full(reference)))
    follow(answer.lines(), out, quiet=quiet, code=code)


def auth_headers(reference: str) -> dict[str, str]:
    """X-Registry-Auth for the registry of *reference*; nothing where nobody has signed in anywhere.

    The keyring, asyncio and all are loaded only where there is a login to look up.
    """
    if not any(map(os.path.exists, _login_files())):
        return {}
    import asyncio

    from backend.credentials import header_for, plain_warning
    from backend.credentials.undumpable import protect_memory
    from backend.errors import EngineError

    protect_memory()
    try:
        header = asyncio.run(header_for(reference))
        warning = plain_warning(reference) if header else ""
    except EngineError as error:
        raise Usage(str(error)) from None
    if warning:
        print(f"WARNING: {warning}", file=sys.stderr)
    return {"X-Registry-Auth": header} if header else {}


def _login_files() -> tuple[str, ...]:
    """Where backend.credentials keeps what it knows: its own list, its encrypted file, and Docker's config.json."""
    home = os.path.expanduser("~")
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    docker = os.environ.get("DOCKER_CONFIG") or os.path.join(os.environ.get("HOME") or home, ".docker")
    own = os.path.join(base, "slipway")
    return (os.path.join(own, "logins.json"), os.path.join(own, "credentials.enc"), os.path.join(docker, "config.json"))
