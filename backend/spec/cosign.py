"""Signatures of images as cosign makes them: what is signed, how it is kept in a registry, and whether a key made it.

Two forms. *simple*: a small JSON document (`containers-signature(5)`, "simple signing") is signed as it is; the
signature is an annotation of the layer that holds the document. *bundle* (cosign 3): an in-toto statement in a DSSE
envelope, in a Sigstore bundle. Both bind the digest of the image's manifest or index. Pure; `cryptography` is loaded
when a signature is made or checked, so that an engine without a policy does not carry it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from backend.errors import InvalidArgument
from backend.spec.image import OCI_CONFIG, OCI_MANIFEST, Descriptor, encode
from backend.spec.reference import is_digest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

SIMPLE_LAYER = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE_LAYER = "application/vnd.dev.sigstore.bundle.v0.3+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
_SIMPLE_TYPE = "cosign container image signature"
_IN_TOTO = "application/vnd.in-toto+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_SIGNED_BY_COSIGN = "https://sigstore.dev/cosign/sign/v1"
#: Bytes that a signature's document or bundle may have.
DOCUMENT_LIMIT = 1 << 20

Form = Literal["simple", "bundle"]


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature as it was found; nothing is checked yet.

    *payload*: the document as the registry has it; *signature*: DER of ECDSA; *signed*: the bytes that it is over;
    *digest*: the manifest that it speaks of; *reference*: the repository that it names, "" where the form has none.
    """

    form: Form
    payload: bytes
    signature: bytes
    signed: bytes
    digest: str
    reference: str = ""


def signature_tag(digest: str) -> str:
    """The tag under which the signatures of *digest* are in its repository: ``sha256-….sig``."""
    return f"{digest.replace(':', '-', 1)}.sig"


def simple_payload(repository: str, digest: str, annotations: dict[str, str] | None = None) -> bytes:
    """The document that says: this digest, in this repository."""
    if not is_digest(digest):
        raise InvalidArgument(f"{digest!r} is no sha256 digest")
    document = {"critical": {"identity": {"docker-reference": repository}, "image": {"docker-manifest-digest": digest},
                             "type": _SIMPLE_TYPE}, "optional": annotations or None}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


# --- reading ----------------------------------------------------------------------------------------------------------

def _base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise InvalidArgument("a signature is missing")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument("a signature is not base64") from error


def _object(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > DOCUMENT_LIMIT:
        raise InvalidArgument(f"the {what} is larger than {DOCUMENT_LIMIT >> 20} MiB")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the {what} is not JSON") from error
    if not isinstance(found, dict):
        raise InvalidArgument(f"the {what} is no JSON object")
    return found


def read_simple(payload: bytes, signature: str) -> Signature:
    """A simple signature from its document and the annotation beside it. Raises :class:`InvalidArgument`."""
    critical = _object(payload, "signed document").get("critical")
    try:
        kind, digest = critical["type"], critical["image"]["docker-manifest-digest"]  # type: ignore[index]
        reference = critical["identity"]["docker-reference"]  # type: ignore[index]
    except (KeyError, TypeError) as error:
        raise InvalidArgument("the signed document lacks its critical section") from error
    if kind != _SIMPLE_TYPE or not isinstance(digest, str) or not is_digest(digest) or not isinstance(reference, str):
        raise InvalidArgument("the signed document is no signature of an image")
    return Signature("simple", payload, _base64(signature), payload, digest, reference)


def read_bundle(data: bytes) -> Signature:
    """A Sigstore bundle with one signature of an image. Raises :class:`InvalidArgument` for any other."""
    envelope = _object(data, "bundle").get("dsseEnvelope")
    try:
        payload_type, signatures = envelope["payloadType"], envelope["signatures"]  # type: ignore[index]
        payload = _base64(envelope["payload"])  # type: ignore[index]
        signature = _base64(signatures[0]["sig"])
        alone = len(signatures) == 1
    except (KeyError, TypeError, IndexError) as error:
        raise InvalidArgument("the bundle holds no signed envelope") from error
    if payload_type != _IN_TOTO or not alone:
        raise InvalidArgument("the bundle is of a kind that is not known here")
    statement = _object(payload, "signed statement")
    subjects = statement.get("subject")
    if statement.get("predicateType") != _SIGNED_BY_COSIGN or not isinstance(subjects, list) or len(subjects) != 1:
        raise InvalidArgument("the bundle is no signature of one image")
    try:
        digest = f"sha256:{subjects[0]['digest']['sha256']}"
    except (KeyError, TypeError) as error:
        raise InvalidArgument("the bundle names no digest") from error
    if not is_digest(digest):
        raise InvalidArgument("the bundle names no sha256 digest")
    return Signature("bundle", data, signature, _envelope_bytes(payload_type, payload), digest)


def _envelope_bytes(kind: str, payload: bytes) -> bytes:
    """What a DSSE envelope's signature is over (its "pre-authentication encoding")."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def again(form: str, payload: bytes, signature: bytes) -> Signature:
    """A signature that was kept, read as if it had just come. Raises :class:`InvalidArgument`."""
    if form == "bundle":
        return read_bundle(payload)
    return read_simple(payload, base64.b64encode(signature).decode())


# --- making and checking ----------------------------------------------------------------------------------------------

def sign(key: EllipticCurvePrivateKey, payload: bytes) -> bytes:
    """ECDSA with SHA-256 over *payload*, DER."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return key.sign(payload, ec.ECDSA(hashes.SHA256()))


def sign_bundle(key: EllipticCurvePrivateKey, digest: str, annotations: dict[str, str] | None = None) -> bytes:
    """A Sigstore bundle in which the owner of *key* says that *digest* is his."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    statement = json.dumps({
        "_type": "https://in-toto.io/Statement/v1", "predicateType": _SIGNED_BY_COSIGN, "predicate": {},
        "subject": [{"digest": {"sha256": digest.removeprefix("sha256:")}, "annotations": annotations or {}}],
    }, separators=(",", ":"), ensure_ascii=False).encode()
    hint = hashlib.sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    signature = sign(key, _envelope_bytes(_IN_TOTO, statement))
    return encode({"mediaType": BUNDLE_LAYER,
                   "verificationMaterial": {"publicKey": {"hint": base64.b64encode(hint).decode()}},
                   "dsseEnvelope": {"payload": base64.b64encode(statement).decode(), "payloadType": _IN_TOTO,
                                    "signatures": [{"sig": base64.b64encode(signature).decode()}]}})


def check_public_key(pem: bytes) -> None:
    """Raises :class:`InvalidArgument` where *pem* is no public key of ECDSA P-256."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except ValueError as error:
        raise InvalidArgument("it is no public key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidArgument("it is no key of ECDSA P-256, the kind that cosign makes")


def made_by(pem: bytes, signature: Signature) -> bool:
    """Whether the owner of the public key *pem* (checked before) made *signature*."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(pem)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(signature.signature, signature.signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


# --- as it lies in a registry -----------------------------------------------------------------------------------------

def simple_layer(payload: bytes, signature: bytes) -> Descriptor:
    """The layer of a signature manifest."""
    return Descriptor(SIMPLE_LAYER, _digest(payload), len(payload),
                      annotations={ANNOTATION: base64.b64encode(signature).decode()})


def signature_config(layers: list[Descriptor]) -> bytes:
    """The configuration that a signature manifest has, so that registries take it for an image."""
    return encode({"architecture": "", "os": "", "config": {}, "created": "0001-01-01T00:00:00Z",
                   "rootfs": {"type": "layers", "diff_ids": [one.digest for one in layers]},
                   "history": [{"created": "0001-01-01T00:00:00Z"} for _ in layers]})


def signature_manifest(layers: list[Descriptor], config: bytes) -> bytes:
    """The manifest that the tag ``sha256-….sig`` names: one layer a signature."""
    return encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers,
                   "config": Descriptor(OCI_CONFIG, _digest(config), len(config))})


def bundle_manifest(bundle: bytes, subject: Descriptor) -> bytes:
    """A manifest of one bundle that names what it is about; its configuration is ``{}``."""
    layer = Descriptor(BUNDLE_LAYER, _digest(bundle), len(bundle))
    return encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": BUNDLE_LAYER,
                   "config": Descriptor(_EMPTY, _digest(b"{}"), 2), "layers": [layer], "subject": subject,
                   "annotations": {"dev.sigstore.bundle.content": "dsse-envelope",
                                   "dev.sigstore.bundle.predicateType": _SIGNED_BY_COSIGN}})


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
