"""Logins by registry: the keyring first, Docker's own config.json (and the helpers it names) after it.

Which registries have a login in the keyring is written, without secrets, in ``slipway/logins.json`` below the user's
settings: so that a pull from a registry without a login touches no D-Bus, and so that they can be listed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Literal

from backend.credentials import helpers, keyring_store
from backend.credentials.config import DockerConfig, write_private
from backend.credentials.credential import Credential, registry_key, registry_of
from backend.credentials.registry_auth import auth_header
from backend.errors import Unavailable

Place = Literal["keyring", "helper", "file"]


@dataclass(frozen=True, slots=True)
class Login:
    """A login that is known, without its secret. *where*: ``keyring``, a helper's program, or config.json's path."""

    registry: str
    username: str
    place: Place
    where: str


def index_path() -> str:
    """The list of registries whose login is in the keyring."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "slipway", "logins.json")


def _index() -> dict[str, str]:
    try:
        with open(index_path(), "rb") as file:
            said = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Unavailable(f"{index_path()} cannot be read: {error}. Remove it and sign in again.") from None
    return {str(name): str(user) for name, user in said.items()} if isinstance(said, dict) else {}


def _write_index(entries: dict[str, str]) -> None:
    write_private(index_path(), json.dumps(entries, indent=1).encode() + b"\n")


async def load(registry: str) -> Credential | None:
    """The login of *registry* (any spelling; "" is Docker Hub); None where nobody has signed in.

    Raises:
        Unavailable: there is a login, and the keyring or helper that keeps it does not answer.
    """
    key = registry_key(registry)
    username = _index().get(key)
    if username is not None:
        found = await keyring_store.load(key, username)
        if found is not None:
            return found
    config = DockerConfig.read()
    helper = config.helper_for(key)
    found = await helpers.get(helper, key) if helper else None
    return found or config.plain(key)


async def save(credential: Credential) -> Login:
    """Keeps *credential* in the keyring; without one where Docker keeps it. Says where it went.

    A place ``file`` means that the password can be read by whoever reads the file: tell the user.
    """
    key = registry_key(credential.registry)
    if await keyring_store.available():
        before = _index().get(key)
        await keyring_store.save(credential)
        if before is not None and before != credential.username:
            await keyring_store.erase(key, before)
        _write_index({**_index(), key: credential.username})
        return Login(key, credential.username, "keyring", "keyring")
    config = DockerConfig.read()
    helper = config.helper_for(key)
    if helper:
        await helpers.store(helper, credential)
        return Login(key, credential.username, "helper", f"docker-credential-{helper}")
    config.with_login(credential).write()
    return Login(key, credential.username, "file", config.path)


async def erase(registry: str) -> bool:
    """Signs out of *registry* wherever a login is kept, Docker's files included. Whether there was one."""
    key = registry_key(registry)
    entries = _index()
    found = False
    if key in entries:
        await keyring_store.erase(key, entries.pop(key))
        _write_index(entries)
        found = True
    config = DockerConfig.read()
    helper = config.helper_for(key)
    if helper and await helpers.get(helper, key) is not None:
        await helpers.erase(helper, key)
        found = True
    if config.plain(key) is not None:
        config.without(key).write()
        found = True
    return found


async def list() -> tuple[Login, ...]:
    """Every known login, once a registry; the first place that :func:`load` would take."""
    found = {key: Login(key, user, "keyring", "keyring") for key, user in _index().items()}
    config = DockerConfig.read()
    for helper in config.helpers():
        for key, user in (await helpers.names(helper)).items():
            found.setdefault(key, Login(key, user, "helper", f"docker-credential-{helper}"))
    for credential in config.plain_all():
        found.setdefault(credential.registry, Login(credential.registry, credential.username, "file", config.path))
    return tuple(found.values())


async def header_for(reference: str) -> str:
    """X-Registry-Auth for a pull of the image *reference*; "" where nobody has signed in to its registry."""
    return auth_header(await load(registry_of(reference)))
