"""What registries say without giving anything: an image's descriptor and platforms, a search. Blocks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from backend.errors import EngineError, InvalidArgument, NotFound, ServerError, Unauthorized
from backend.images.hosts import Endpoint, endpoints, own_endpoint
from backend.images.registry import Registry
from backend.images.transport import Denied, Transport, bounded
from backend.images.types import Found, RegistryAuth, RegistrySettings
from backend.spec.image import DOCUMENT_LIMIT, Descriptor, Index, Platform, decode_config, decode_manifest
from backend.spec.reference import HUB, Reference, parse

T = TypeVar("T")
_MOST = 100  # results of a search, as docker's limit
_HUB_INDEX = "index.docker.io"


def describe(
    reference: Reference, auth: RegistryAuth | None, settings: RegistrySettings
) -> tuple[Descriptor, list[Platform]]:
    """What *reference* means at its registry now, and for which platforms it is.

    Raises:
        NotFound: the registry does not know it.
        EngineError: what else the registry says.
    """
    asked = reference.with_default_tag()

    def look(registry: Registry) -> tuple[Descriptor, list[Platform]]:
        fetched = registry.manifest(asked.digest or asked.tag)
        document = decode_manifest(fetched.data, fetched.media_type)
        kind = document.media_type or fetched.media_type
        found = Descriptor(kind, fetched.digest, len(fetched.data))
        if isinstance(document, Index):
            named = [one.platform for one in document.manifests if one.platform is not None]
            return found, [Platform(one.os, one.architecture, one.variant) for one in named]
        size = document.config.size
        if size > DOCUMENT_LIMIT:
            raise InvalidArgument(f"the image configuration is larger than {DOCUMENT_LIMIT >> 20} MiB and is refused")
        details = decode_config(b"".join(registry.blob(document.config.digest, size)))
        return found, [Platform(details.os, details.architecture, details.variant or "")]

    return first_that_answers(asked, auth, settings, look)


def all_tags(reference: Reference, auth: RegistryAuth | None, settings: RegistrySettings) -> list[str]:
    """Every tag of a repository. Raises :class:`EngineError`."""
    found = first_that_answers(reference, auth, settings, Registry.tags)
    if not found:
        raise NotFound(f"{reference.familiar_name} has no tags")
    return found


def catalog(
    host: str, auth: RegistryAuth | None, settings: RegistrySettings, *, last: str = "", limit: int = 100
) -> tuple[list[str], str]:
    """Repositories of the registry *host* behind *last*, and where to go on ("" at the end).

    Raises:
        ServerError: the registry lists nothing to anybody, as Docker Hub does, or fails.
        Unauthorized: it wants a sign-in, or another one.
    """
    endpoint = own_endpoint(Reference(parse(f"{host}/x").registry, "x"), settings)
    transport = Transport(endpoint, settings, auth, ("registry:catalog:*",), threading.Event())
    try:
        transport.connect()
        query = urlencode({"n": limit, **({"last": last} if last else {})}, quote_via=quote)
        answer = transport.request("GET", f"{transport.base}_catalog?{query}")
        data = bounded(answer, DOCUMENT_LIMIT)
    except Denied as error:
        raise Unauthorized(str(error)) from error
    finally:
        transport.close()
    if answer.status in (401, 403):
        raise Unauthorized(f"the registry {endpoint.host} shows its list only to others; sign in with another account")
    if answer.status != 200:
        raise ServerError(f"the registry {endpoint.host} has no list of its repositories (it answers {answer.status})")
    names = _names(data, endpoint.host)
    return names, names[-1] if names and "next" in answer.headers.get("Link", "") else ""


def _names(data: bytes, host: str) -> list[str]:
    try:
        found = json.loads(data)["repositories"]
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ServerError(f"the registry {host} answered with something else than a list of repositories")
    return sorted(found)


def first_that_answers(
    reference: Reference, auth: RegistryAuth | None, settings: RegistrySettings, work: Callable[[Registry], T]
) -> T:
    """*work* at the mirrors of the registry, then at itself. Raises what the last of them raised."""
    last: EngineError | None = None
    for endpoint in endpoints(reference, settings):
        registry = Registry(endpoint, reference, auth, threading.Event(), settings)
        try:
            registry.connect()
            return work(registry)
        except EngineError as error:
            last = error
        finally:
            registry.close()
    assert last is not None
    raise last


def search(term: str, limit: int, auth: RegistryAuth | None, settings: RegistrySettings) -> list[Found]:
    """Repositories by a word, as ``docker search`` shows them: *term* may begin with a registry's host.

    Raises:
        ServerError: the registry has no search, or fails.
    """
    host, word = _split(term)
    if not word:
        raise InvalidArgument("a search needs a term: docker search TERM")
    endpoint = own_endpoint(Reference(host, "search"), settings)
    if host == HUB:
        endpoint = Endpoint(_HUB_INDEX, insecure=False)
    transport = Transport(endpoint, settings, auth, (), threading.Event())
    try:
        transport.connect()
        query = urlencode({"q": word, "n": min(limit or 25, _MOST)}, quote_via=quote)
        answer = transport.request("GET", f"{transport.base.removesuffix('v2/')}v1/search?{query}")
        data = bounded(answer, DOCUMENT_LIMIT)
    except Denied as error:
        raise Unauthorized(str(error)) from error
    finally:
        transport.close()
    if answer.status == 404:
        raise ServerError(f"the registry {endpoint.host} has no search (it answers 404 to /v1/search): registries of "
                          "the OCI kind list only their own repositories")
    if answer.status != 200:
        raise ServerError(f"the registry {endpoint.host} answered {answer.status} to a search")
    return _results(data)[: limit or None]


def _split(term: str) -> tuple[str, str]:
    first, slash, rest = term.strip().partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return parse(f"{first}/x").registry, rest
    return HUB, term.strip()


def _results(data: bytes) -> list[Found]:
    try:
        rows = json.loads(data)["results"]
        if not isinstance(rows, list):
            raise TypeError("results is no list")
        return [_found(row) for row in rows if isinstance(row, dict)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ServerError(f"the registry's answer to the search cannot be read: {error}") from error


def _found(row: dict[str, Any]) -> Found:
    stars = row.get("star_count")
    return Found(str(row.get("name", "")), str(row.get("description") or ""), row.get("is_official") is True,
                 row.get("is_automated") is True, stars if isinstance(stars, int) else 0)
