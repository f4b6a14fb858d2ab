"""What a registry wants to know of its user, and how registries are named."""

from __future__ import annotations

from dataclasses import dataclass, field

from backend.spec.reference import HUB, parse

#: Docker's name for Docker Hub in config.json and for credential helpers; older than the hub's present names.
HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


@dataclass(frozen=True, slots=True)
class Credential:
    """A login. *identity_token* takes the password's place where a registry gave one. ``repr`` shows no secret."""

    registry: str
    username: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def registry_key(registry: str) -> str:
    """The one name under which *registry* (host, ``https://host/``, ``docker.io``, "" for the hub) is kept."""
    host = registry.strip().removeprefix("https://").removeprefix("http://").split("/", 1)[0].lower()
    return HUB_KEY if not host or host in _HUB_HOSTS else host


def registry_of(reference: str) -> str:
    """The key of the registry that the image *reference* belongs to.

    Raises:
        InvalidArgument: no valid name of an image.
    """
    return registry_key(parse(reference).registry)
