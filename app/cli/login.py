"""`slipway login` and `slipway logout`. The password is typed or read, never an argument, and never printed."""

from __future__ import annotations

import asyncio
import sys

from app.cli.errors import Failure, Refused, Usage
from app.cli.flags import Flag, Parser
from app.cli.http import Engine
from backend import credentials
from backend.credentials import Credential, registry_key
from backend.credentials.undumpable import protect_memory
from backend.errors import EngineError

TYPING = False
if TYPING:
    from app.cli.flags import Options

_LOGIN = Parser(
    "login [FLAGS] [REGISTRY]", "Sign in to a registry (Docker Hub if none is named).",
    Flag("username", "text", short="u", about="the user"),
    Flag("password", "text", short="p", about="the password; better typed, or sent by --password-stdin"),
    Flag("password-stdin", about="read the password from the standard input"), most=1)
_LOGOUT = Parser("logout [REGISTRY]", "Sign out of a registry (Docker Hub if none is named).", most=1)


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    try:
        if words[0] == "logout":
            return _logout(_LOGOUT.parse(words[1:]))
        return _login(_LOGIN.parse(words[1:]), Engine(address))
    except EngineError as error:
        raise Failure(str(error)) from None


def _login(given: Options, engine: Engine) -> int:
    protect_memory()
    key = registry_key(given.words[0] if given.words else "")
    credential = _asked_for(given, key)
    answer = _try(engine, credential)
    token = answer.get("IdentityToken") or ""
    kept = asyncio.run(credentials.save(
        Credential(key, credential.username, "" if token else credential.password, token)))
    if kept.place == "file":
        name = "" if key == credentials.HUB_KEY else f" {key}"
        print(f"WARNING: there is no keyring here (no desktop session with a Secret Service). The password is in "
              f"{kept.where}, not encrypted: whoever reads that file has it. `slipway logout{name}` removes it; "
              "`docker-credential-slipway create-file` makes an encrypted place for it.", file=sys.stderr)
    elif warning := credentials.plain_warning():
        print(f"WARNING: {warning}", file=sys.stderr)
    print("Login Succeeded")
    return 0


def _try(engine: Engine, credential: Credential) -> dict[str, str]:
    """Asks the registry, through the engine, whether it takes *credential*; only then it is kept."""
    try:
        found: dict[str, str] = engine.json("POST", "/auth", body={
            "username": credential.username, "password": credential.password, "serveraddress": credential.registry,
        }) or {}
    except Refused as refused:
        if refused.status == 401:
            raise Failure(f"{credential.registry} does not take this user and password ({refused}). Nothing was "
                          "kept.") from None
        raise
    return found


def _asked_for(given: Options, key: str) -> Credential:
    """The user and password from flags, the standard input or the terminal."""
    if given.password and given.password_stdin:
        raise Usage("--password and --password-stdin contradict each other.")
    if given.password_stdin:
        if not given.username:
            raise Usage("--password-stdin needs --username.")
        return Credential(key, given.username, sys.stdin.read().rstrip("\r\n"))
    if given.password:
        print("WARNING: a password on the command line can be read by others while this runs, and stays in the "
              "shell's history. Use --password-stdin.", file=sys.stderr)
    if not sys.stdin.isatty() and not (given.username and given.password):
        raise Usage("there is no terminal to ask for the password. Send it in with --password-stdin.")
    username = given.username or input("Username: ").strip()
    if not username:
        raise Usage("a user name is needed.")
    password = given.password
    if not password:
        import getpass

        password = getpass.getpass("Password: ")
    if not password:
        raise Usage("a password is needed.")
    return Credential(key, username, password)


def _logout(given: Options) -> int:
    key = registry_key(given.words[0] if given.words else "")
    if asyncio.run(credentials.erase(key)):
        print(f"Removing login credentials for {key}")
    else:
        print(f"Not logged in to {key}")
    return 0
