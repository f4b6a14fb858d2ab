"""Which images may run: a policy file in the format of `containers-policy.json(5)`, of which this engine knows a part.

``default`` and, below ``transports.docker``, scopes: an image with its tag or digest, a repository, the namespaces
above it, a host, ``*.domain``. The narrowest scope that fits an image holds; its requirements must all be met:
``insecureAcceptAnything``, ``reject``, or ``sigstoreSigned`` with keys (``keyPath``, ``keyPaths``, ``keyData``,
``keyDatas``) and a ``signedIdentity`` (``matchRepository``, the default here; ``exactRepository`` with
``dockerRepository``). What is not known is an error, never passed over: a policy that is half understood protects
nobody. Pure.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from backend.errors import InvalidArgument
from backend.spec.cosign import Signature, check_public_key, made_by
from backend.spec.reference import HUB, Reference, parse

ACCEPT, REJECT, SIGNED = "insecureAcceptAnything", "reject", "sigstoreSigned"
_KEYS = frozenset({"type", "keyPath", "keyPaths", "keyData", "keyDatas", "signedIdentity"})
_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and the name by which messages call it."""

    name: str
    pem: bytes


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of a scope. *keys*: one of them must have signed. *identity*: the repository that the signature must
    name; "" = the image's own."""

    kind: Literal["accept", "reject", "signed"]
    keys: tuple[Key, ...] = ()
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as read. *scopes*: scope -> requirements."""

    default: tuple[Requirement, ...]
    scopes: dict[str, tuple[Requirement, ...]]

    def requirements(self, reference: Reference) -> tuple[Requirement, ...]:
        """What is asked of *reference*."""
        return next((self.scopes[one] for one in _scopes_of(reference) if one in self.scopes), self.default)


ACCEPT_ALL = Policy((Requirement("accept"),), {})


def _scopes_of(reference: Reference) -> list[str]:
    """Every scope that *reference* is in, the narrowest first."""
    path = reference.repository
    found = [f"{path}@{reference.digest}"] if reference.digest else []
    found += [f"{path}:{reference.tag}"] if reference.tag else []
    found.append(path)
    while "/" in path:
        path = path.rpartition("/")[0]
        found.append(path)
    host = reference.registry.partition(":")[0]
    while "." in host:
        host = host.partition(".")[2]
        found.append(f"*.{host}")
    return found


def read_policy(data: bytes, read_key: Callable[[str], bytes]) -> Policy:
    """*data* as a policy. *read_key* gives the contents of a key file, or raises :class:`InvalidArgument`.

    Raises:
        InvalidArgument: it cannot be understood whole; the message names the place.
    """
    if len(data) > _LIMIT:
        raise InvalidArgument(f"it is larger than {_LIMIT >> 20} MiB")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"it is not JSON: {error}") from None
    if not isinstance(document, dict) or "default" not in document:
        raise InvalidArgument('it has no "default"')
    _only(document, {"default", "transports"}, "the policy")
    transports = _table(document.get("transports", {}), "transports")
    docker = _table(transports.get("docker", {}), "transports.docker")
    scopes = {}
    for scope, wanted in docker.items():
        # "" is the transport's own default.
        where = f"transports.docker.{scope or '(default)'}"
        scopes[_scope(scope) if scope else ""] = _requirements(wanted, where, read_key)
    default = scopes.pop("", None)
    own = _requirements(document["default"], "default", read_key)
    return Policy(default or own, scopes)


def _scope(text: str) -> str:
    """A scope in full: Docker Hub is ``docker.io``, and ``docker.io/library`` its own images."""
    if text.startswith("*."):
        return text
    if text == HUB or "/" not in text:
        return text
    host = text.partition("/")[0]
    if "." in host or ":" in host or host == "localhost":
        return text
    raise InvalidArgument(f"the scope {text!r} does not begin with a registry (docker.io/library/busybox, "
                          "registry.example/team)")


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where} is no JSON object")
    return value


def _only(table: dict[str, Any], known: set[str] | frozenset[str], where: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise InvalidArgument(f"{where} has {unknown[0]!r}, which is not known here")


def _requirements(value: Any, where: str, read_key: Callable[[str], bytes]) -> tuple[Requirement, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidArgument(f"{where} is no list of requirements")
    return tuple(_requirement(_table(one, where), where, read_key) for one in value)


def _requirement(one: dict[str, Any], where: str, read_key: Callable[[str], bytes]) -> Requirement:
    kind = one.get("type")
    if kind in (ACCEPT, REJECT):
        _only(one, {"type"}, where)
        return Requirement("accept" if kind == ACCEPT else "reject")
    if kind != SIGNED:
        raise InvalidArgument(f"{where}: the type {kind!r} is not known here (known: {ACCEPT}, {REJECT}, {SIGNED})")
    _only(one, _KEYS, where)
    keys = [Key(path, read_key(path)) for path in _texts(one, "keyPath", "keyPaths", where)]
    for number, text in enumerate(_texts(one, "keyData", "keyDatas", where), 1):
        try:
            keys.append(Key(f"key {number} of {where}", base64.b64decode(text, validate=True)))
        except (binascii.Error, ValueError) as error:
            raise InvalidArgument(f"{where}: keyData is not base64") from error
    if not keys:
        raise InvalidArgument(f"{where}: {SIGNED} needs keyPath, keyPaths, keyData or keyDatas")
    for key in keys:
        try:
            check_public_key(key.pem)
        except InvalidArgument as error:
            raise InvalidArgument(f"{where}: {key.name} cannot be used: {error.message}") from error
    return Requirement("signed", tuple(keys), _identity(one.get("signedIdentity"), where))


def _texts(one: dict[str, Any], single: str, many: str, where: str) -> list[str]:
    found = [one[single]] if single in one else list(one[many]) if isinstance(one.get(many), list) else []
    if not all(isinstance(text, str) and text for text in found) or (many in one and not isinstance(one[many], list)):
        raise InvalidArgument(f"{where}: {single} and {many} are texts")
    return found


def _identity(value: Any, where: str) -> str:
    if value is None:
        return ""
    table = _table(value, f"{where}.signedIdentity")
    if table.get("type") == "matchRepository":
        _only(table, {"type"}, f"{where}.signedIdentity")
        return ""
    if table.get("type") == "exactRepository" and isinstance(table.get("dockerRepository"), str):
        _only(table, {"type", "dockerRepository"}, f"{where}.signedIdentity")
        return parse(table["dockerRepository"]).repository
    raise InvalidArgument(f"{where}: signedIdentity can be matchRepository or exactRepository with dockerRepository")


def signer(requirement: Requirement, reference: Reference, signatures: list[Signature], digest: str) -> Key | None:
    """The key of *requirement* that signed *digest* for *reference*; None where there is no such signature."""
    wanted = requirement.identity or reference.repository
    for signature in signatures:
        if signature.digest != digest or (signature.reference and not _names(signature.reference, wanted)):
            continue
        for key in requirement.keys:
            if made_by(key.pem, signature):
                return key
    return None


def _names(reference: str, repository: str) -> bool:
    """Whether a signature's docker-reference (which may have a tag) means *repository*."""
    try:
        return parse(reference).repository == repository
    except InvalidArgument:
        return False
