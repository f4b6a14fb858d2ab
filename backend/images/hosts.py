"""Where a registry is and how it may be reached: mirrors, plain http, certificates of its own, proxies.

Rules of safety: no plain http but to a literal loopback address or a registry that was named insecure; what a name
server says never makes a registry insecure.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

from backend.errors import ServerError
from backend.images.types import RegistrySettings
from backend.spec.reference import HUB, Reference

_HUB_HOST = "registry-1.docker.io"
_SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to a registry. *insecure*: plain http and unknown certificates are allowed."""

    host: str
    insecure: bool
    mirror: bool = False
    scheme: str = ""  # "" = https first, then http where that is allowed
    prefix: str = ""


def endpoints(reference: Reference, settings: RegistrySettings) -> list[Endpoint]:
    """Where to ask for *reference*, in order: docker.io's mirrors, then the registry."""
    found = []
    if reference.registry == HUB:
        for mirror in settings.mirrors:
            parts = urlsplit(mirror if "//" in mirror else f"https://{mirror}")
            insecure = is_insecure(parts.netloc, settings)
            if parts.scheme == "http" and not insecure:
                continue  # a mirror off this machine must be named by --insecure-registry as well
            found.append(Endpoint(parts.netloc, insecure, True, parts.scheme, parts.path.rstrip("/")))
        return [*found, Endpoint(_HUB_HOST, False)]
    return [own_endpoint(reference, settings)]


def own_endpoint(reference: Reference, settings: RegistrySettings) -> Endpoint:
    """The registry itself: what is pushed never goes to a mirror."""
    if reference.registry == HUB:
        return Endpoint(_HUB_HOST, False)
    return Endpoint(reference.registry, is_insecure(reference.registry, settings))


def is_insecure(host: str, settings: RegistrySettings) -> bool:
    """Whether *host* (with its port) may be reached without TLS, or with a certificate that nobody vouches for."""
    name = urlsplit(f"//{host}").hostname or ""
    if is_loopback(name):
        return True
    for rule in settings.insecure:
        if rule in (host, name):
            return True
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(name) in ipaddress.ip_network(rule, strict=False):
                return True
    return False


def is_loopback(name: str) -> bool:
    """A literal loopback address or ``localhost``: never what some name server says."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def tls_context(host: str, settings: RegistrySettings, *, insecure: bool) -> ssl.SSLContext:
    """The TLS settings for *host*: the system's roots, and what certs.d has for it (``ca.crt``, ``x.cert``, ``x.key``).

    Raises:
        ServerError: a certificate or key there cannot be used; the message names it.
    """
    roots = os.environ.get("SSL_CERT_FILE") or (_SYSTEM_ROOTS if os.path.exists(_SYSTEM_ROOTS) else None)
    context = ssl.create_default_context(cafile=roots)
    folders = [f"{folder}/{host}" for folder in settings.certificates if host and "/" not in host]
    own = next((folder for folder in folders if os.path.isdir(folder)), "")
    trusted = _load_own(context, own) if own else False
    if insecure and not trusted:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_own(context: ssl.SSLContext, folder: str) -> bool:
    """Takes in what *folder* has; whether a root was among it."""
    trusted = False
    for name in sorted(os.listdir(folder)):
        path = f"{folder}/{name}"
        try:
            if name.endswith(".crt"):
                context.load_verify_locations(path)
                trusted = True
            elif name.endswith(".cert"):
                context.load_cert_chain(path, f"{path.removesuffix('.cert')}.key", password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ServerError(f"the certificate {path} cannot be used: {error}") from error
    return trusted


def _no_password() -> str:
    raise ValueError("its key has a password; only keys without one can be used here")


def proxy_for(url: str, settings: RegistrySettings) -> str:
    """The proxy for *url*, as the settings or else the environment say; "" = none. Never one for loopback."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    if is_loopback(name):
        return ""
    own = {"http": settings.http_proxy, "https": settings.https_proxy, "no": settings.no_proxy}
    proxies = own if settings.http_proxy or settings.https_proxy else urllib.request.getproxies_environment()
    if _bypassed(name, parts.port, proxies.get("no", "")):
        return ""
    return proxies.get(parts.scheme, "") or proxies.get("all", "")


def _bypassed(name: str, port: int | None, rules: str) -> bool:
    """Whether ``NO_PROXY`` names the host: itself, a domain above it, a network of literal addresses, or all."""
    for rule in (one.strip().lower() for one in rules.split(",")):
        if rule == "*" or rule in (name, f"{name}:{port}"):
            return True
        if rule and name.endswith(f".{rule.lstrip('.')}"):
            return True
        with contextlib.suppress(ValueError):
            if "/" in rule and ipaddress.ip_address(name) in ipaddress.ip_network(rule, strict=False):
                return True
    return False
