"""Tries credentials at a registry, for `docker login`. Blocks; runs in a worker thread."""

from __future__ import annotations

import threading

from backend.errors import InvalidArgument, ServerError, Unauthorized
from backend.images.hosts import own_endpoint
from backend.images.registry import Registry
from backend.images.transport import Denied
from backend.images.types import RegistryAuth, RegistrySettings
from backend.spec.reference import HUB, Reference

_HUB_NAMES = ("", "docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")


def registry_host(address: str) -> str:
    """The host of a server address as clients write it: "https://index.docker.io/v1/", "localhost:5000"."""
    host = address.partition("://")[2] if "://" in address else address
    host = host.partition("/")[0].lower()
    return HUB if host in _HUB_NAMES else host


def check(address: str, auth: RegistryAuth, settings: RegistrySettings) -> str:
    """Try *auth* at the registry of *address*; returns what the client is told.

    Raises:
        Unauthorized: the registry does not accept them.
        ServerError: the registry cannot be reached or answers otherwise; the message names it.
        InvalidArgument: *address* is no registry.
    """
    host = registry_host(address)
    if not host or any(letter.isspace() or letter in "@\\#?" for letter in host):
        raise InvalidArgument(f"{address!r} is no address of a registry")
    reference = Reference(host, "library/login")
    registry = Registry(own_endpoint(reference, settings), reference, auth, threading.Event(), settings)
    url = f"https://{registry.endpoint.host}/v2/"
    try:
        status = registry.ping()
    except Denied as error:
        raise Unauthorized(f'Get "{url}": unauthorized: incorrect username or password') from error
    finally:
        registry.close()
    if status != 200:
        raise ServerError(f"login attempt to {url} failed with status: {status}")
    return "Login Succeeded"
