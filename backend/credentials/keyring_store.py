"""Passwords in the desktop's keyring (Secret Service), through the library `keyring`.

A registry is a service of its own, ``slipway:<registry>`` (names: `vault.name_of`). The calls block on D-Bus, and for
as long as the desktop asks its user to unlock the keyring, so each runs in a worker thread.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TypeVar

from backend.credentials.credential import Credential
from backend.errors import Unavailable

T = TypeVar("T")


def _service(registry: str) -> str:
    return f"slipway:{registry}"


async def _do(work: Callable[[], T]) -> T:
    def guarded() -> T:
        import keyring.errors

        try:
            return work()
        except keyring.errors.NoKeyringError:
            raise Unavailable("There is no keyring here: no desktop session bus with a Secret Service "
                              "(gnome-keyring, KWallet, KeePassXC) was found.") from None
        except (keyring.errors.KeyringLocked, keyring.errors.InitError) as error:
            raise Unavailable(f"The keyring cannot be opened: {error}. Unlock it and try again.") from None
        except keyring.errors.KeyringError as error:
            raise Unavailable(f"The keyring refused: {error}.") from None

    return await asyncio.to_thread(guarded)


async def available() -> bool:
    """Whether a keyring that keeps anything is in reach."""

    def look() -> bool:
        import keyring

        return float(keyring.get_keyring().priority) > 0

    try:
        return await _do(look)
    except Unavailable:
        return False


async def load(registry: str, username: str) -> Credential | None:
    """The login of *username*."""

    def work() -> str | None:
        import keyring

        return keyring.get_password(_service(registry), username)

    secret = await _do(work)
    if secret is None:
        return None
    said = json.loads(secret)
    return Credential(registry, username, said.get("password", ""), said.get("identity_token", ""))


async def save(credential: Credential) -> None:
    """Keeps *credential*; one of the same user is replaced."""
    secret = json.dumps({"identity_token": credential.identity_token} if credential.identity_token
                        else {"password": credential.password})

    def work() -> None:
        import keyring

        keyring.set_password(_service(credential.registry), credential.username, secret)

    await _do(work)


async def erase(registry: str, username: str) -> None:
    """Forgets the login; nothing happens where there is none."""

    def work() -> None:
        import keyring
        import keyring.errors

        try:
            keyring.delete_password(_service(registry), username)
        except keyring.errors.PasswordDeleteError:
            if keyring.get_password(_service(registry), username) is not None:
                raise

    await _do(work)
