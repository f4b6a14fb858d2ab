"""Slipway's own keeping of logins: the desktop's keyring, or the encrypted file that the user made.

`docker-credential-slipway` and `slipway login` share it, so that a sign-in by either serves both. Which registries
have a login in the keyring is written, without secrets, in ``slipway/logins.json`` below the user's settings: so that
a pull from a registry without a login touches no D-Bus, and so that they can be listed (a keyring cannot be asked for
that).

A registry is kept under its name as `registry_key` has it; what docker files below a path of its own (the tokens of its
sign-in by browser: ``https://index.docker.io/v1/access-token``) keeps that name whole.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Literal
from urllib.parse import urlsplit

from backend.credentials import encrypted_file, keyring_store
from backend.credentials.config import write_private
from backend.credentials.credential import Credential, registry_key
from backend.errors import InvalidArgument, Unavailable

Kept = Literal["keyring", "encrypted"]
#: Which of the two is used: ``keyring`` or ``file``. Unset: the keyring where one answers, else the file if it was
#: made.
CHOICE = "SLIPWAY_CREDENTIALS"
_PLAIN_PATHS = ("", "/", "/v1", "/v1/", "/v2", "/v2/")


def name_of(server: str) -> str:
    """The name under which the login of *server*, a registry as clients write it, is kept."""
    url = server.strip() if "://" in server else f"https://{server.strip()}"
    return registry_key(server) if urlsplit(url).path in _PLAIN_PATHS else server.strip()


def index_path() -> str:
    """The list of registries whose login is in the keyring."""
    return os.path.join(encrypted_file.settings_folder(), "logins.json")


def _index() -> dict[str, str]:
    try:
        with open(index_path(), "rb") as file:
            said = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Unavailable(f"{index_path()} cannot be read: {error}. Remove it and sign in again.") from None
    return {str(name): str(user) for name, user in said.items()} if isinstance(said, dict) else {}


def _note(registry: str, username: str | None) -> None:
    """Note that the keyring has (None: has no more) a login of *registry*."""
    with encrypted_file.locked():
        entries = _index()
        if username is None:
            entries.pop(registry, None)
        else:
            entries[registry] = username
        write_private(index_path(), json.dumps(entries, indent=1).encode() + b"\n")


def choice() -> str:
    """The user's own word on where logins go; "" where he has said nothing.

    Raises:
        InvalidArgument: it is no word that is known.
    """
    said = os.environ.get(CHOICE, "")
    if said not in ("", "keyring", "file"):
        raise InvalidArgument(f"{CHOICE} is {said!r}; it can be keyring or file.")
    return said


async def place() -> Kept | None:
    """Where a login would be kept now; None where there is neither a keyring nor a file."""
    said = choice()
    if said != "file" and (said == "keyring" or await keyring_store.available()):
        return "keyring"
    return "encrypted" if said == "file" or encrypted_file.exists() else None


async def load(registry: str) -> Credential | None:
    """The login kept for *registry* (a name of :func:`name_of`).

    Raises:
        Unavailable: it is kept, and what keeps it does not answer.
        Unauthorized: wrong passphrase of the encrypted file.
    """
    in_file = registry in encrypted_file.names()
    username = None if choice() == "file" else _index().get(registry)
    if username is not None:
        try:
            found = await keyring_store.load(registry, username)
        except Unavailable:
            if not in_file:
                raise
            found = None
        if found is not None:
            return found
    return await asyncio.to_thread(encrypted_file.load, registry) if in_file else None


async def save(credential: Credential) -> Kept:
    """Keeps *credential* under ``credential.registry`` and says where.

    Raises:
        Unavailable: there is nothing to keep it in, or that does not answer.
    """
    where = await place()
    if where is None:
        raise Unavailable("There is neither a keyring (no session bus with a Secret Service) nor an encrypted file "
                          "here. Make one with `docker-credential-slipway create-file`.")
    if where == "encrypted":
        await asyncio.to_thread(encrypted_file.save, credential)
        return where
    before = _index().get(credential.registry)
    await keyring_store.save(credential)
    if before is not None and before != credential.username:
        await keyring_store.erase(credential.registry, before)
    _note(credential.registry, credential.username)
    encrypted_file.erase(credential.registry)      # an older one would come to light when the keyring is away
    return where


async def erase(registry: str) -> bool:
    """Forgets *registry* in both places. Whether there was a login."""
    username = None if choice() == "file" else _index().get(registry)
    if username is not None:
        await keyring_store.erase(registry, username)
        _note(registry, None)
    return encrypted_file.erase(registry) or username is not None


def names() -> dict[str, tuple[str, Kept]]:
    """Registry -> (user name, where its login is kept). Asks neither keyring nor passphrase."""
    found: dict[str, tuple[str, Kept]] = {name: (user, "encrypted") for name, user in encrypted_file.names().items()}
    if choice() != "file":
        found |= {name: (user, "keyring") for name, user in _index().items()}
    return found
