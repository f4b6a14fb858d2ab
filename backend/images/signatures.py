"""Signatures in a registry: found by the tag ``sha256-….sig`` and among the referrers, and put there. All of it
blocks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from backend.errors import EngineError, InvalidArgument, NotFound
from backend.images.hosts import endpoints, own_endpoint
from backend.images.registry import Outgoing, Registry
from backend.images.types import RegistryAuth, RegistrySettings
from backend.spec import cosign
from backend.spec.cosign import Signature
from backend.spec.image import OCI_MANIFEST, Descriptor, Index, Manifest, decode_manifest, digest_of
from backend.spec.reference import Reference

T = TypeVar("T")
#: Signatures and referrers of one image that are looked at; a registry may list without end.
_MOST = 64


def find(reference: Reference, auth: RegistryAuth | None, settings: RegistrySettings) -> tuple[str, list[Signature]]:
    """The digest that *reference* has now, and every signature of it that the registry has; none of them is checked.

    Raises:
        NotFound: there is no such image.
        ServerError: the registry cannot be reached or misbehaves.
    """

    def look(registry: Registry) -> tuple[str, list[Signature]]:
        digest = reference.digest or _digest(registry, reference)
        return digest, [*_tagged(registry, digest), *_referring(registry, digest)]

    return _first_that_knows(reference, auth, settings, look)


def _first_that_knows(
    reference: Reference, auth: RegistryAuth | None, settings: RegistrySettings, look: Callable[[Registry], T]
) -> T:
    last: EngineError | None = None
    for endpoint in endpoints(reference, settings):
        with contextlib.closing(Registry(endpoint, reference, auth, threading.Event(), settings)) as registry:
            try:
                registry.connect()
                return look(registry)
            except EngineError as error:
                last = error
    assert last is not None
    raise last


def _digest(registry: Registry, reference: Reference) -> str:
    tag = reference.with_default_tag().tag
    found = registry.head(tag)
    return found.digest if found is not None else registry.manifest(tag).digest


def _tagged(registry: Registry, digest: str) -> Iterator[Signature]:
    try:
        fetched = registry.manifest(cosign.signature_tag(digest))
    except NotFound:
        return
    yield from _in_manifest(registry, fetched.data)


def _referring(registry: Registry, digest: str) -> Iterator[Signature]:
    found = registry.referrers(digest)
    if found is None:
        return
    try:
        index = decode_manifest(found.data, found.media_type)
    except InvalidArgument:
        return                    # the tag that stands in for the API is something else's
    for entry in index.manifests[:_MOST] if isinstance(index, Index) else ():
        try:
            yield from _in_manifest(registry, registry.manifest(entry.digest).data)
        except NotFound:
            continue              # an index may name what was deleted


def _in_manifest(registry: Registry, data: bytes) -> Iterator[Signature]:
    """What can be read as a signature; anything else is no signature, and so proves nothing."""
    try:
        manifest = decode_manifest(data)
    except InvalidArgument:
        return
    for layer in manifest.layers[:_MOST] if isinstance(manifest, Manifest) else ():
        if layer.media_type not in (cosign.SIMPLE_LAYER, cosign.BUNDLE_LAYER) or layer.size > cosign.DOCUMENT_LIMIT:
            continue
        document = b"".join(registry.blob(layer.digest, layer.size))
        try:
            if layer.media_type == cosign.BUNDLE_LAYER:
                yield cosign.read_bundle(document)
            else:
                yield cosign.read_simple(document, (layer.annotations or {}).get(cosign.ANNOTATION, ""))
        except InvalidArgument:
            continue


def put(reference: Reference, signature: Signature, auth: RegistryAuth | None, settings: RegistrySettings) -> None:
    """Put a signature beside the image that it is about: a simple one as one more layer under the signature tag, a
    bundle as a manifest of its own that names its subject.

    Raises:
        NotFound: the registry has no such image.
        Forbidden: we may not push there.
    """
    endpoint = own_endpoint(reference, settings)
    with contextlib.closing(Registry(endpoint, reference, auth, threading.Event(), settings, push=True)) as registry:
        registry.connect()
        subject = registry.head(signature.digest)
        if subject is None:
            raise NotFound(f"{reference.familiar_name}@{signature.digest} is not in the registry; push it first")
        _upload(registry, signature.payload)
        if signature.form == "bundle":
            _upload(registry, b"{}")
            data = cosign.bundle_manifest(signature.payload, subject)
            if not registry.put_manifest(digest_of(data), data, OCI_MANIFEST):
                registry.enter_referrer(data)
        else:
            layer = cosign.simple_layer(signature.payload, signature.signature)
            _add_to_tag(registry, signature.digest, layer)


def _upload(registry: Registry, data: bytes) -> None:
    digest = digest_of(data)
    if not registry.has_blob(digest):
        registry.upload(Outgoing(digest, len(data), lambda start: iter([data[start:]]), lambda done: None))


def _existing(registry: Registry, which: str) -> bytes | None:
    return registry.manifest(which).data if registry.head(which) is not None else None


def _add_to_tag(registry: Registry, digest: str, layer: Descriptor) -> None:
    tag = cosign.signature_tag(digest)
    before = _existing(registry, tag)
    layers: list[Descriptor] = []
    if before is not None:
        found = decode_manifest(before)
        layers = list(found.layers) if isinstance(found, Manifest) else []
    layers.append(layer)
    config = cosign.signature_config(layers)
    _upload(registry, config)
    registry.put_manifest(tag, cosign.signature_manifest(layers, config), OCI_MANIFEST)
