"""Sign-ins to registries as the window needs them. Secrets pass through and are shown nowhere."""

from __future__ import annotations

from dataclasses import dataclass

from backend import credentials
from backend.client import Client
from backend.credentials import HUB_KEY, Credential, Login, registry_key, vault
from backend.errors import EngineError, Unauthorized
from backend.spec import api

HUB = "docker.io"


@dataclass(frozen=True, slots=True)
class SignIn:
    """One registry that the user has signed in to. `kept`: where the secret is, in words."""

    registry: str
    user: str
    kept: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a new sign-in will be kept, in words."""

    text: str
    safe: bool


async def storage() -> Storage:
    """Whether there is a keyring to keep passwords in, and what happens otherwise."""
    where = await vault.place()
    if where == "encrypted":
        return Storage("Passwords are kept in the encrypted file that you made with docker-credential-slipway.", True)
    if where == "keyring":
        return Storage("Passwords are kept in your desktop's keyring.", True)
    return Storage("No keyring answers in this session. Passwords will be kept where docker keeps them: by its "
                   "credential helper if one is set up, otherwise unencrypted in its config.json, which only you can "
                   "read.", False)


async def list_sign_ins() -> list[SignIn]:
    """All that are known, by name."""
    return sorted((_sign_in(one) for one in await credentials.list()), key=lambda one: one.registry)


async def sign_in(client: Client, registry: str, user: str, secret: str) -> SignIn:
    """Let the engine check with the registry, then keep it. Raises what the registry says; nothing is kept then."""
    key = registry_key(registry)
    answer = await client.check_auth(api.AuthConfig(username=user, password=secret, serveraddress=key))
    token = answer.identity_token
    kept = await credentials.save(Credential(key, user, "" if token else secret, token))
    return _sign_in(kept)


async def refusal(client: Client, registry: str) -> str:
    """"" when the registry takes what is kept for it; otherwise what it (or the keyring) says."""
    try:
        found = await credentials.load(registry)
        if found is None:
            return "nothing is kept for it any more"
        await client.check_auth(api.AuthConfig(
            username=found.username, password=found.password, identitytoken=found.identity_token,
            serveraddress=registry_key(registry)))
    except Unauthorized as error:
        return f"not accepted: {error.message}"
    except EngineError as error:
        return f"cannot be asked now: {error.message}"
    return ""


async def header(registry: str) -> str:
    """X-Registry-Auth for *registry*; "" where nobody has signed in."""
    return credentials.auth_header(await credentials.load(registry))


async def sign_out(registry: str) -> None:
    """Forget it, wherever it is kept."""
    await credentials.erase(registry)


def _sign_in(login: Login) -> SignIn:
    kept = {"keyring": "kept in the keyring", "encrypted": f"kept encrypted in {login.where}",
            "helper": f"kept by {login.where}", "file": f"kept unencrypted in {login.where}"}[login.place]
    return SignIn(HUB if login.registry == HUB_KEY else login.registry, login.username, kept)
