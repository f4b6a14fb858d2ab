"""Tries credentials at a registry, for `docker login`. Blocks; runs in a worker thread."""

from __future__ import annotations

import threading

from backend.errors import InvalidArgument, NotFound, ServerError, Unauthorized
from backend.images.registry import Registry, endpoints
from backend.images.types import RegistryAuth, RegistrySettings
from backend.spec.reference import HUB, Reference

_HUB_NAMES = ("", "docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")


def registry_host(address: str) -> str:
    """The host of a server address as clients write it: "https://index.docker.io/v1/", "localhost:5000"."""
    host = address.partition("://")[2] if "://" in address else address
    host = host.partition("/")[0].lower()
    return HUB if host in _HUB_NAMES else host


class _Login(Registry):
    """A registry that is asked for nothing but whether it lets us in."""

    def try_it(self) -> None:
        self.connect()
        url = f"{self._scheme}://{self.endpoint.host}{self.endpoint.prefix}/v2/"
        try:
            answer = self._get(url, {})
        except (NotFound, ServerError) as error:
            if any(word in error.message for word in ("unauthorized", "denied", "no basic auth")):
                raise Unauthorized(f'Get "{url}": unauthorized: incorrect username or password') from error
            raise
        with answer:
            if answer.status_code != 200:
                raise ServerError(f'login attempt to {url} failed with status: {answer.status_code} {answer.reason}')


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
    endpoint = endpoints(reference, RegistrySettings((), settings.insecure))[-1]
    registry = _Login(endpoint, reference, auth, threading.Event())
    try:
        registry.try_it()
    finally:
        registry.close()
    return "Login Succeeded"
