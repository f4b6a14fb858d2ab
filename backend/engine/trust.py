"""Trust: the administrator's policy, the signatures that were found, and whether an image may run.

A pull looks for signatures in the registry when the policy asks for any, and keeps them below ``images/trust`` by the
digest that they are about. A create and every start decide from what is kept, offline: the image's digests must lead to
this image (from the manifest or index that was pulled, whose bytes are in the store), and a key of the policy must have
signed one of them. The policy is read anew when its file changes. What cannot be read, understood or proved is refused.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import EngineError, Forbidden, InvalidArgument, NotFound
from backend.spec import cosign
from backend.spec.cosign import Signature
from backend.spec.image import Index, Manifest, decode_manifest
from backend.spec.policy import ACCEPT_ALL, Policy, Requirement, read_policy, signer
from backend.spec.reference import Reference, is_digest, parse

if TYPE_CHECKING:
    from backend.images import ImageStore
    from backend.images.types import Image, RegistryAuth

log = logging.getLogger("slipway.trust")
_DEPTH = 3
_KEY_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True)
class Found:
    """One signature in a registry, and the keys of the policy that made it (their names)."""

    signature: Signature
    keys: tuple[str, ...]


class Trust:
    """What the policy file says, applied to the images of *store*."""

    def __init__(self, policy_file: str, folder: str, store: ImageStore) -> None:
        self.path = policy_file
        self._folder = folder
        self._store = store
        self._stamp: tuple[int, ...] = ()
        self._policy = ACCEPT_ALL
        self._broken = ""
        #: Digests whose signatures are kept for a pull that is under way.
        self._coming: set[str] = set()
        #: Verdicts that were good, for this policy: (image, name) -> True.
        self._good: set[tuple[str, str]] = set()

    # --- the policy -------------------------------------------------------------------------------------------------
    def policy(self) -> Policy:
        """The policy as it is now.

        Raises:
            Forbidden: its file cannot be understood; nothing may run until it can.
        """
        stamp = self._looks()
        if stamp != self._stamp:
            self._stamp, self._broken = stamp, ""
            self._good.clear()
            try:
                self._policy = self._read() if stamp else ACCEPT_ALL
            except (InvalidArgument, OSError) as error:
                self._broken = error.message if isinstance(error, EngineError) else f"{error.strerror}"
                log.error("the trust policy %s is not understood, nothing may run: %s", self.path, self._broken)
        if self._broken:
            raise Forbidden(f"no image may run here: the trust policy {self.path} is not understood: {self._broken}. "
                            "Its administrator has to repair it.")
        return self._policy

    def _looks(self) -> tuple[int, ...]:
        """What changes with the file; empty where there is none."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return ()
        except OSError as error:
            return (-1, error.errno or 0)
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns

    @property
    def present(self) -> bool:
        """Whether there is a policy file; without one every image may run."""
        return bool(self._looks())

    def _read(self) -> Policy:
        with open(self.path, "rb") as file:
            return read_policy(file.read(), _read_key)

    # --- deciding ---------------------------------------------------------------------------------------------------
    async def check(self, image: str, asked_for: str) -> None:
        """Whether the image (its ID) may run under the name that it was *asked_for* by. Raises :class:`Forbidden`."""
        policy = self.policy()
        if policy is ACCEPT_ALL or (image, asked_for) in self._good:
            return
        await asyncio.to_thread(self._check, policy, self._store.get(image), asked_for)
        self._good.add((image, asked_for))

    def _check(self, policy: Policy, image: Image, asked_for: str) -> None:
        references = _references(image, asked_for)
        refusals = [self._refusal(policy, image, one) for one in references]
        if not references:
            refusals = [self._unnamed(policy)]
        if all(refusals):
            raise Forbidden(f"{asked_for or image.id} may not run here: {refusals[0]} (policy: {self.path})")

    def _unnamed(self, policy: Policy) -> str:
        """Why an image without any name may not run; "" = it may."""
        accepted = all(one.kind == "accept" for one in policy.default)
        return "" if accepted else "it has no name that the policy could know it by"

    def _refusal(self, policy: Policy, image: Image, reference: Reference) -> str:
        """Why it may not run as *reference*; "" = it may."""
        for requirement in policy.requirements(reference):
            if requirement.kind == "reject":
                return f"the policy rejects {reference.familiar_name}"
            if requirement.kind == "signed":
                why = self._unsigned(requirement, image, reference)
                if why:
                    return why
        return ""

    def _unsigned(self, requirement: Requirement, image: Image, reference: Reference) -> str:
        keys = ", ".join(os.path.basename(key.name) for key in requirement.keys)
        digests = [digest for digest in _digests(image, reference) if self._leads_to(digest, image.id)]
        for digest in digests:
            if signer(requirement, reference, self._kept(digest), digest) is not None:
                return ""
        if not digests:
            return (f"{reference.familiar_name} must be signed by {keys}, and this image did not come from a registry "
                    "under that name")
        return (f"{reference.familiar_name} must be signed by {keys}, and no such signature of {digests[0]} is known; "
                "sign it (slipway trust sign) and pull it again")

    def _leads_to(self, digest: str, image: str, depth: int = _DEPTH) -> bool:
        """Whether the manifest or index *digest* in the store is, or contains, the one of this image."""
        try:
            document = decode_manifest(self._store.blobs.read(digest))
        except (NotFound, InvalidArgument, OSError):
            return False
        if isinstance(document, Manifest):
            return document.config.digest == image
        inner = document.manifests if isinstance(document, Index) and depth else []
        return any(self._store.blobs.has(one.digest) and self._leads_to(one.digest, image, depth - 1) for one in inner)

    # --- signatures that are kept -----------------------------------------------------------------------------------
    def _file(self, digest: str) -> str:
        return f"{self._folder}/{digest.removeprefix('sha256:')}.json"

    def _kept(self, digest: str) -> list[Signature]:
        """Read as if they came from the registry: nothing in the file is believed but what its signature proves."""
        try:
            with open(self._file(digest), "rb") as file:
                rows = json.load(file)
            return [cosign.again(str(row["form"]), base64.b64decode(row["payload"]), base64.b64decode(row["signature"]))
                    for row in rows]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, InvalidArgument) as error:
            log.error("the signatures of %s that were kept cannot be read: %s", digest, error)
            return []

    def _keep(self, digest: str, signatures: Sequence[Signature]) -> None:
        rows = [{"form": one.form, "payload": base64.b64encode(one.payload).decode(),
                 "signature": base64.b64encode(one.signature).decode()} for one in signatures]
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        fd, temporary = tempfile.mkstemp(dir=self._folder)
        try:
            with open(fd, "w") as file:
                json.dump(rows, file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, self._file(digest))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def forget_unused(self) -> None:
        """Drop the signatures of digests that no image has any more, and none is coming for."""
        used = self._used() | self._coming
        for name in os.listdir(self._folder) if os.path.isdir(self._folder) else []:
            if f"sha256:{name.removesuffix('.json')}" not in used:
                os.unlink(f"{self._folder}/{name}")

    def arrived(self) -> None:
        """An image has come: its signatures stay for as long as it does."""
        self._coming -= self._used()

    def _used(self) -> set[str]:
        return {name.partition("@")[2] for image in self._store.list() for name in image.digests}

    # --- registries -------------------------------------------------------------------------------------------------
    async def before_pull(self, name: str, auth: RegistryAuth | None) -> str:
        """Look for the signatures that a pull of *name* needs, before a name of ours moves to what it brings.

        Returns a line for the user; "" where the policy asks for nothing.

        Raises:
            Forbidden: the policy would not let it run.
        """
        reference = parse(name).with_default_tag()
        wanted = self.policy().requirements(reference)
        if any(one.kind == "reject" for one in wanted):
            raise Forbidden(f"{reference.familiar} is not pulled: the policy {self.path} rejects "
                            f"{reference.familiar_name}")
        signed = [one for one in wanted if one.kind == "signed"]
        if not signed:
            return ""
        digest, found = await self._find(reference, auth)
        keys = await asyncio.to_thread(lambda: [signer(one, reference, found, digest) for one in signed])
        missing = next((one for one, key in zip(signed, keys, strict=True) if key is None), None)
        if missing is not None:
            names = ", ".join(os.path.basename(key.name) for key in missing.keys)
            raise Forbidden(f"{reference.familiar} is not pulled: {reference.familiar_name} must be signed by {names}, "
                            f"and none of the {len(found)} signatures of {digest} in the registry is by them (policy: "
                            f"{self.path})")
        self._coming.add(digest)
        await asyncio.to_thread(self._keep, digest, found)
        self._good.clear()
        return "Signed by " + ", ".join(dict.fromkeys(os.path.basename(key.name) for key in keys if key))

    async def _find(self, reference: Reference, auth: RegistryAuth | None) -> tuple[str, list[Signature]]:
        from backend.images import signatures  # the registry client: only who asks a registry needs it

        return await asyncio.to_thread(signatures.find, reference, auth, self._store.settings)

    async def look(self, name: str, auth: RegistryAuth | None) -> tuple[str, list[Found]]:
        """The digest of *name* in its registry and its signatures there, each with the policy's keys that made it."""
        reference = parse(name).with_default_tag()
        digest, found = await self._find(reference, auth)
        wanted = [one for one in self.policy().requirements(reference) if one.kind == "signed"]

        def judge() -> list[Found]:
            return [Found(one, tuple(key.name for requirement in wanted
                                     if (key := signer(requirement, reference, [one], digest)) is not None))
                    for one in found]

        return digest, await asyncio.to_thread(judge)

    async def put(self, name: str, form: str, payload: bytes, signature: bytes, auth: RegistryAuth | None) -> None:
        """Put a signature that its owner made into the registry of *name*. Raises :class:`InvalidArgument`."""
        from backend.images import signatures

        made = cosign.again(form, payload, signature)
        await asyncio.to_thread(signatures.put, parse(name), made, auth, self._store.settings)

    def verdict(self, name: str) -> str:
        """Why the image *name* of the store may not run; "" = it may. Raises :class:`NotFound`."""
        try:
            self._check(self.policy(), self._store.get(name), name)
        except Forbidden as error:
            return error.message
        return ""


def _references(image: Image, asked_for: str) -> list[Reference]:
    """The name that it was asked for by; for an ID, every name that it has."""
    names = (*image.references, *image.digests)
    by_id = image.id.removeprefix("sha256:").startswith(asked_for.removeprefix("sha256:"))
    if is_digest(asked_for) or (by_id and parse(asked_for).with_default_tag().familiar not in names):
        return [parse(one) for one in names]
    return [parse(asked_for).with_default_tag()]


def _digests(image: Image, reference: Reference) -> list[str]:
    """The digests under which *image* came from the repository of *reference*."""
    found = [parse(one) for one in image.digests]
    return [one.digest for one in found if one.repository == reference.repository]


def _read_key(path: str) -> bytes:
    if not os.path.isabs(path):
        raise InvalidArgument(f"the key {path!r} is no absolute path")
    try:
        with open(path, "rb") as file:
            return file.read(_KEY_LIMIT)
    except OSError as error:
        raise InvalidArgument(f"the key {path} cannot be read: {error.strerror}") from None
