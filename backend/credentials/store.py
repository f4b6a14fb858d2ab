"""Logins by registry: our own keeping first (`vault`), Docker's own config.json and the helpers it names after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from backend.credentials import encrypted_file, helpers, vault
from backend.credentials.config import DockerConfig
from backend.credentials.credential import Credential, registry_key, registry_of
from backend.credentials.registry_auth import auth_header

Place = Literal["keyring", "encrypted", "helper", "file"]
#: The helper of ours: asked directly, without a process of its own.
OURS = "slipway"


@dataclass(frozen=True, slots=True)
class Login:
    """A login that is known, without its secret. *where*: ``keyring``, a helper's program, or the path of a file.

    *place*: ``file`` is Docker's config.json, readable as it is; ``encrypted`` the file of `encrypted_file`.
    """

    registry: str
    username: str
    place: Place
    where: str


def _own(registry: str, username: str, kept: vault.Kept) -> Login:
    return Login(registry, username, kept, "keyring" if kept == "keyring" else encrypted_file.path())


async def load(registry: str) -> Credential | None:
    """The login of *registry* (any spelling; "" is Docker Hub); None where nobody has signed in.

    Raises:
        Unavailable: there is a login, and the keyring or helper that keeps it does not answer.
    """
    key = registry_key(registry)
    found = await vault.load(key)
    if found is not None:
        return found
    config = DockerConfig.read()
    helper = config.helper_for(key)
    found = await helpers.get(helper, key) if helper and helper != OURS else None
    return found or config.plain(key)


async def save(credential: Credential) -> Login:
    """Keeps *credential* in the keyring (or the encrypted file); without either where Docker keeps it. Says where.

    A place ``file`` means that the password can be read by whoever reads the file: tell the user.
    """
    key = registry_key(credential.registry)
    config = DockerConfig.read()
    helper = config.helper_for(key)
    if helper == OURS or await vault.place() is not None:
        return _own(key, credential.username, await vault.save(replace(credential, registry=key)))
    if helper:
        await helpers.store(helper, credential)
        return Login(key, credential.username, "helper", f"docker-credential-{helper}")
    config.with_login(credential).write()
    return Login(key, credential.username, "file", config.path)


async def erase(registry: str) -> bool:
    """Signs out of *registry* wherever a login is kept, Docker's files included. Whether there was one."""
    key = registry_key(registry)
    found = await vault.erase(key)
    config = DockerConfig.read()
    helper = config.helper_for(key)
    if helper and helper != OURS and await helpers.get(helper, key) is not None:
        await helpers.erase(helper, key)
        found = True
    found = found or config.plain(key) is not None
    if config.mentions(key):
        config.without(key).write()
    return found


async def list() -> tuple[Login, ...]:
    """Every known login, once a registry; the first place that :func:`load` would take."""
    found = {key: _own(key, "" if user == helpers.TOKEN else user, kept) for key, (user, kept) in vault.names().items()
             if vault.name_of(key) == registry_key(key)}
    config = DockerConfig.read()
    for helper in config.helpers():
        if helper == OURS:
            continue
        for key, user in (await helpers.names(helper)).items():
            found.setdefault(key, Login(key, user, "helper", f"docker-credential-{helper}"))
    for credential in config.plain_all():
        found.setdefault(credential.registry, Login(credential.registry, credential.username, "file", config.path))
    return tuple(found.values())


def plain_warning(reference: str = "") -> str:
    """A sentence for the user where Docker's config.json holds passwords that anybody can read who reads it; else "".

    With the *reference* of an image: only where its registry's login is taken from there.
    """
    config = DockerConfig.read()
    names = [credential.registry for credential in config.plain_all()]
    if reference:
        key = registry_of(reference)
        names = [key] if key in names and key not in vault.names() and not config.helper_for(key) else []
    if not names:
        return ""
    return (f"{config.path} holds the password of {', '.join(names)} unencrypted. `docker-credential-slipway move` "
            "puts it into your keyring.")


async def move_plain() -> tuple[Login, ...]:
    """Moves the logins that Docker's config.json holds in plain into the keyring or the encrypted file.

    So that docker finds them still, the file names our helper for these registries afterwards.

    Raises:
        Unavailable: there is nothing to move them to; the file is as it was.
    """
    moved = []
    for credential in DockerConfig.read().plain_all():
        kept = await vault.save(credential)
        moved.append(_own(credential.registry, credential.username, kept))
        # Read again, written at once: whatever else changed the file meanwhile is kept, and so is what was moved so
        # far.
        DockerConfig.read().with_helper(credential.registry, OURS).write()
    return tuple(moved)


async def header_for(reference: str) -> str:
    """X-Registry-Auth for a pull of the image *reference*; "" where nobody has signed in to its registry."""
    return auth_header(await load(registry_of(reference)))
