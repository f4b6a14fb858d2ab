"""The credential-helper protocol: programs ``docker-credential-X`` with a verb as argument and JSON on their pipes.

get: registry on stdin -> {ServerURL, Username, Secret}; store: that document on stdin; erase: registry on stdin;
list: {registry: username}. A user name ``<token>`` marks the secret as an identity token.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from backend.credentials.credential import Credential, registry_key
from backend.errors import InvalidArgument, ServerError, Unavailable

TOKEN = "<token>"  # noqa: S105 - the protocol's word, no secret
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_TIMEOUT = 120  # seconds: a helper may ask its user for a password
_NOT_FOUND = "credentials not found"


async def _ask(helper: str, verb: str, said: str) -> tuple[int, str]:
    if not _NAME.fullmatch(helper):
        raise InvalidArgument(f"{helper!r} is no valid name of a credential helper. Correct Docker's config.json.")
    program = f"docker-credential-{helper}"
    pipe = asyncio.subprocess.PIPE
    try:
        child = await asyncio.create_subprocess_exec(program, verb, stdin=pipe, stdout=pipe,
                                                     stderr=asyncio.subprocess.DEVNULL)
    except (FileNotFoundError, PermissionError) as error:
        raise Unavailable(f"The credential helper {program}, which Docker's config.json names, cannot be run "
                          f"({error.strerror}). Install it, or take it out of the file.") from None
    try:
        out, _ = await asyncio.wait_for(child.communicate(said.encode()), _TIMEOUT)
    except TimeoutError:
        raise Unavailable(f"The credential helper {program} did not answer within {_TIMEOUT} s.") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode or 0, out.decode(errors="replace").strip()


async def _must(helper: str, verb: str, said: str) -> str:
    code, out = await _ask(helper, verb, said)
    if code:
        # What a helper prints when it fails is its message; its answer, which holds the secret, comes with status 0.
        raise ServerError(f"docker-credential-{helper} {verb} failed: {out[:200] or f'exit status {code}'}")
    return out


async def get(helper: str, registry: str) -> Credential | None:
    """The login that *helper* keeps for *registry* (a key of ours)."""
    code, out = await _ask(helper, "get", registry)
    if code:
        if _NOT_FOUND in out.lower():
            return None
        raise ServerError(f"docker-credential-{helper} get failed: {out[:200] or f'exit status {code}'}")
    answer = _object(helper, out)
    user, secret = str(answer.get("Username", "")), str(answer.get("Secret", ""))
    if user == TOKEN:
        return Credential(registry_key(registry), "", identity_token=secret)
    return Credential(registry_key(registry), user, secret)


async def store(helper: str, credential: Credential) -> None:
    """Gives *credential* to *helper* to keep."""
    token = credential.identity_token
    said = {"ServerURL": credential.registry, "Username": TOKEN if token else credential.username,
            "Secret": token or credential.password}
    await _must(helper, "store", json.dumps(said))


async def erase(helper: str, registry: str) -> None:
    """Makes *helper* forget *registry*."""
    code, out = await _ask(helper, "erase", registry)
    if code and _NOT_FOUND not in out.lower():
        raise ServerError(f"docker-credential-{helper} erase failed: {out[:200] or f'exit status {code}'}")


async def names(helper: str) -> dict[str, str]:
    """What *helper* keeps: registry key -> user name."""
    answer = _object(helper, await _must(helper, "list", ""))
    return {registry_key(name): "" if user == TOKEN else str(user) for name, user in answer.items()}


def _object(helper: str, out: str) -> dict[str, Any]:
    try:
        answer = json.loads(out or "{}")
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ServerError(f"docker-credential-{helper} did not answer with a JSON object.")
    return answer
