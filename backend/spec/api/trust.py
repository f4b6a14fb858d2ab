"""Trust under ``/slipway/trust``: what Docker's API has no words for."""

from __future__ import annotations

from msgspec import Struct


class TrustKey(Struct):
    """A public key of the policy."""

    name: str = ""
    pem: str = ""


class TrustRequirement(Struct):
    """One requirement of a scope: ``accept``, ``reject`` or ``signed`` (by one of *keys*, for the repository
    *identity*)."""

    kind: str = ""
    keys: list[TrustKey] = []
    identity: str = ""


class TrustPolicy(Struct):
    """The policy as the engine reads it. *present*: whether the file *path* is there; without it all may run."""

    path: str = ""
    present: bool = False
    default: list[TrustRequirement] = []
    scopes: dict[str, list[TrustRequirement]] = {}


class TrustSignature(Struct):
    """A signature in a registry. *payload* and *signature*: base64. *keys*: the policy's keys that made it."""

    form: str = ""
    digest: str = ""
    reference: str = ""
    payload: str = ""
    signature: str = ""
    keys: list[str] = []


class TrustSignatures(Struct):
    """What a reference means in its registry, and what is signed of it."""

    reference: str = ""
    digest: str = ""
    signatures: list[TrustSignature] = []


class TrustSigned(Struct):
    """A signature to be put into a registry. *form* ``simple``: base64 of the signed document and of the DER signature;
    ``bundle``: base64 of the bundle."""

    form: str = "simple"
    payload: str = ""
    signature: str = ""


class TrustVerdict(Struct):
    """Whether an image of the store may run, and why not."""

    allowed: bool = False
    reason: str = ""
