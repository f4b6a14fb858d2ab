"""The program `docker-credential-slipway`: Docker's credential-helper protocol on the keyring or the encrypted file.

``get``, ``store``, ``erase``, ``list`` and ``version`` are the protocol's (JSON on the pipes; a failure is a sentence
on stdout and exit status 1, with two sentences that clients compare word for word). ``create-file``, ``move`` and
``status`` are for people.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from backend.credentials import Credential, encrypted_file, move_plain, plain_warning, vault
from backend.credentials.helpers import TOKEN
from backend.credentials.undumpable import protect_memory
from backend.errors import EngineError, InvalidArgument, NotFound

_INPUT_LIMIT = 1 << 20
_USAGE = """usage: docker-credential-slipway get | store | erase | list | version   (Docker's helper protocol)
       docker-credential-slipway create-file [--key-file PATH]   make an encrypted file, for machines without a keyring;
                                                                 asks for a passphrase where no key file is named
       docker-credential-slipway move      move the passwords that Docker's config.json holds in plain to here
       docker-credential-slipway status    say where passwords are kept

"credsStore": "slipway" in ~/.docker/config.json makes docker use it."""


def _server() -> str:
    server = sys.stdin.read(_INPUT_LIMIT).strip()
    if not server:
        raise InvalidArgument("no credentials server URL")
    return server


async def _get() -> str:
    server = _server()
    found = await vault.load(vault.name_of(server))
    if found is None:
        raise NotFound("credentials not found in native keychain")
    token = found.identity_token
    return json.dumps({"ServerURL": server, "Username": TOKEN if token else found.username,
                       "Secret": token or found.password})


async def _store() -> str:
    try:
        said = json.loads(sys.stdin.read(_INPUT_LIMIT))
        server, user, secret = (str(said.get(key, "")) for key in ("ServerURL", "Username", "Secret"))
    except (ValueError, AttributeError):
        # `from None`, and no word of what was said: it holds a secret.
        raise InvalidArgument("what is to be stored is no JSON object with ServerURL, Username and Secret") from None
    if not server.strip():
        raise InvalidArgument("no credentials server URL")
    if not user:
        raise InvalidArgument("no credentials username")
    password, token = ("", secret) if user == TOKEN else (secret, "")
    await vault.save(Credential(vault.name_of(server), user, password, token))
    return ""


async def _erase() -> str:
    await vault.erase(vault.name_of(_server()))
    return ""


async def _list() -> str:
    return json.dumps({name: user for name, (user, _) in vault.names().items()})


async def _version() -> str:
    from importlib import metadata

    try:
        version = metadata.version("slipway")
    except metadata.PackageNotFoundError:
        version = "development"
    return f"docker-credential-slipway (slipway) {version}"


async def _create_file(words: list[str]) -> str:
    if words and (words[0] != "--key-file" or len(words) != 2):
        raise InvalidArgument(_USAGE)
    if words:
        encrypted_file.create(key_file=words[1])
        return f"Made {encrypted_file.path()}; its key is {os.path.abspath(words[1])}. Keep that apart from backups."
    passphrase = encrypted_file.ask_passphrase("New passphrase: ")
    if not os.environ.get(encrypted_file.PASSPHRASE) and passphrase != encrypted_file.ask_passphrase("Once more: "):
        raise InvalidArgument("The two passphrases are not the same; nothing was made.")
    encrypted_file.create(passphrase=passphrase)
    return f"Made {encrypted_file.path()}."


async def _move() -> str:
    moved = await move_plain()
    return "\n".join(f"{one.registry}: {one.username} is now in {one.where}" for one in moved) or (
        "Docker's config.json holds no password in plain.")


async def _status() -> str:
    where = {"keyring": "in the keyring", "encrypted": f"in {encrypted_file.path()}",
             None: "nowhere: there is neither a keyring nor an encrypted file (`docker-credential-slipway create-file` "
                   "makes one)"}[await vault.place()]
    kept = [f"  {name}: {user}, in {'the keyring' if place == 'keyring' else encrypted_file.path()}"
            for name, (user, place) in vault.names().items()]
    return "\n".join([f"New passwords are kept {where}.", *kept, *filter(None, [plain_warning()])])


_VERBS: dict[str, Callable[[], Coroutine[Any, Any, str]]] = {
    "get": _get, "store": _store, "erase": _erase, "list": _list, "version": _version, "move": _move, "status": _status}


def main() -> int:
    """The program; its exit status."""
    words = sys.argv[1:]
    try:
        protect_memory()
        if words[:1] == ["create-file"]:
            said = asyncio.run(_create_file(words[1:]))
        elif len(words) == 1 and words[0] in _VERBS:
            said = asyncio.run(_VERBS[words[0]]())
        else:
            print(_USAGE)
            return 0 if words in (["-h"], ["--help"]) else 1
    except EngineError as error:
        print(error.message)       # stdout: where the protocol's clients look for it
        return 1
    if said:
        print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
