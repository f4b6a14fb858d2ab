"""The value of the header X-Registry-Auth: URL-safe base64 of a small JSON document (Engine API, "Authentication")."""

from __future__ import annotations

import base64
import json

from backend.credentials.credential import Credential, registry_key


def auth_header(credential: Credential | None) -> str:
    """*credential* for the header; "" for none. The value is a secret: it goes into one request and nowhere else."""
    if credential is None:
        return ""
    said = {"serveraddress": credential.registry}
    if credential.identity_token:
        said["identitytoken"] = credential.identity_token
    else:
        said |= {"username": credential.username, "password": credential.password}
    return base64.urlsafe_b64encode(json.dumps(said).encode()).decode()


def basic_pair(encoded: str) -> tuple[str, str]:
    """User and password in the ``auth`` field of config.json, base64 of ``user:password``; two empty ones if broken."""
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    # Go pads what it decodes into a fixed buffer; docker strips these too.
    return (user, password.rstrip("\0")) if colon else ("", "")


def basic_field(username: str, password: str) -> str:
    """The ``auth`` field for a user and password."""
    return base64.b64encode(f"{username}:{password}".encode()).decode()


def same_registry(left: str, right: str) -> bool:
    """Whether two spellings (``https://host/v2/`` and ``host``) mean one registry."""
    return registry_key(left) == registry_key(right)
