"""A repository spoken to by the OCI distribution-spec: manifests, blobs, tags, referrers, uploads. All of it blocks.

What arrives is checked against the digest and the size that were promised; a broken download or upload goes on where
it broke.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin

from urllib3.exceptions import HTTPError

from backend.errors import EngineError, Forbidden, NotFound, ServerError, Unauthorized, Unavailable
from backend.images.hosts import Endpoint, endpoints, is_loopback
from backend.images.transport import (
    ATTEMPTS,
    TEXT_LIMIT,
    Answer,
    Body,
    Denied,
    Stopped,
    Transport,
    bounded,
    drain,
    reason,
)
from backend.images.types import RegistryAuth, RegistrySettings
from backend.spec.image import (
    DOCKER_SCHEMA1,
    DOCUMENT_LIMIT,
    INDEXES,
    MANIFESTS,
    Descriptor,
    Manifest,
    decode_manifest,
    digest_of,
    encode,
)
from backend.spec.reference import Reference, is_digest

__all__ = ["Endpoint", "Fetched", "Registry", "Stopped", "endpoints", "is_loopback"]

_PIECE = 1 << 18
_CHUNK = 64 << 20  # bytes of one PATCH of an upload
_WHOLE = 4 << 20  # up to here a blob is uploaded by one PUT
_ACCEPT = ", ".join((*MANIFESTS, *INDEXES, *DOCKER_SCHEMA1))
_PAGES = 200  # of a list of tags
_NEXT = re.compile(r'<([^>]+)>\s*;[^,]*rel="?next"?')
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]+)", re.ASCII)

#: Told how many bytes of a blob are through.
Tell = Callable[[int], None]
#: Told how many seconds are waited before a broken transfer goes on.
Retry = Callable[[float], None]
#: The pieces of a blob from an offset on.
Pieces = Callable[[int], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest as it came. *media_type* is the registry's word for it."""

    data: bytes
    digest: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A blob that is uploaded. *size* in bytes; *tell*: how many are through."""

    digest: str
    size: int
    pieces: Pieces
    tell: Tell
    retry: Retry | None = None


class _Broken(Exception):
    """An upload's session is of no use any more: begin anew."""


class Registry:
    """One repository at one endpoint. Thread-safe; close it when done."""

    def __init__(
        self,
        endpoint: Endpoint,
        reference: Reference,
        auth: RegistryAuth | None,
        stop: threading.Event,
        settings: RegistrySettings | None = None,
        *,
        push: bool = False,
        sources: tuple[str, ...] = (),
    ) -> None:
        """*push*: ask for the right to write; *sources*: other repositories that blobs may be mounted from."""
        self.endpoint = endpoint
        self.reference = reference
        self._push = push
        self._settings = settings or RegistrySettings()
        scopes = [f"repository:{reference.path}:{'pull,push' if push else 'pull'}"]
        scopes += [f"repository:{path}:pull" for path in sources]
        self._transport = Transport(endpoint, self._settings, auth, scopes, stop)

    def close(self) -> None:
        """Drop the connections."""
        self._transport.close()

    def connect(self) -> None:
        """Find the scheme that the registry speaks. Raises :class:`ServerError` with the reason when that fails."""
        self._transport.connect()

    @property
    def root(self) -> str:
        """The address of the repository."""
        return f"{self._transport.base}{quote(self.reference.path)}"

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, *, body: Body = None, size: int = 0,
        once: bool = False,
    ) -> Answer:
        try:
            return self._transport.request(method, url, headers, body=body, size=size, once=once)
        except Denied as error:
            raise self._denied(str(error)) from error

    def ping(self) -> int:
        """The status that the registry's front door answers with."""
        self.connect()
        answer = self._transport.request("GET", self._transport.base)
        drain(answer)
        return answer.status

    # --- manifests and lists ------------------------------------------------------------------------------------
    def manifest(self, which: str) -> Fetched:
        """The manifest of a tag or digest.

        Raises:
            NotFound: in docker's words.
            ServerError: it is too large, or its digest is another one.
        """
        answer = self._ask("GET", f"{self.root}/manifests/{which}", {"Accept": _ACCEPT})
        data = self._small(answer, DOCUMENT_LIMIT)
        if answer.status != 200:
            raise self._failure(answer.status, data, which)
        digest = digest_of(data)
        promised = which if is_digest(which) else answer.headers.get("Docker-Content-Digest", "")
        if is_digest(promised) and promised != digest:
            raise ServerError(f"manifest verification failed for digest {promised}: the registry sent {digest}")
        return Fetched(data, digest, answer.headers.get("Content-Type", "").partition(";")[0].strip())

    def head(self, which: str) -> Descriptor | None:
        """What a tag or digest means now, without fetching it; None: unknown, or the registry does not say."""
        answer = self._ask("HEAD", f"{self.root}/manifests/{which}", {"Accept": _ACCEPT})
        drain(answer)
        digest = answer.headers.get("Docker-Content-Digest", "")
        if answer.status != 200 or not is_digest(digest):
            return None
        return Descriptor(answer.headers.get("Content-Type", "").partition(";")[0].strip(), digest, _length(answer))

    def tags(self) -> list[str]:
        """All tags of the repository, page by page."""
        url, found = f"{self.root}/tags/list?n=1000", list[str]()
        for _ in range(_PAGES):
            answer = self._ask("GET", url)
            data = self._small(answer, DOCUMENT_LIMIT)
            if answer.status != 200:
                raise self._failure(answer.status, data, "")
            found += _tags_in(data)
            following = _NEXT.search(answer.headers.get("Link", ""))
            if following is None:
                return found
            url = urljoin(url, following[1])
            self._transport.check_address(url)
        raise ServerError(f"the registry {self.endpoint.host} lists tags of {self.reference.path} without end")

    def referrers(self, digest: str) -> Fetched | None:
        """The index of what refers to *digest* (signatures, attestations): by the API, or by the tag that stands in."""
        answer = self._ask("GET", f"{self.root}/referrers/{digest}", {"Accept": INDEXES[0]})
        data = self._small(answer, DOCUMENT_LIMIT)
        if answer.status == 200:
            return Fetched(data, digest_of(data), INDEXES[0])
        # Asked for by HEAD first: public registries count what is fetched.
        tag = digest.replace(":", "-", 1)
        return self.manifest(tag) if self.head(tag) is not None else None

    def _small(self, answer: Answer, limit: int) -> bytes:
        try:
            return bounded(answer, limit)
        except HTTPError as error:
            raise ServerError(f"the registry {self.endpoint.host} broke off: {reason(error)}; try again") from error

    # --- blobs --------------------------------------------------------------------------------------------------
    def blob(self, digest: str, size: int, retry: Retry | None = None) -> Iterator[bytes]:
        """The bytes of a blob; a broken download goes on where it broke. Never more than *size* bytes are given out.
        *retry* is told how many seconds are waited before it goes on.

        Raises:
            ServerError: too much or too little came.
        """
        done, failures = 0, 0
        while True:
            before = done
            broken = ""
            try:
                for piece in self._part(digest, done):
                    done += len(piece)
                    if done > size:
                        raise ServerError(f"the registry sent more than the {size} bytes that {digest} has")
                    yield piece
            except HTTPError as error:
                broken = reason(error)
            if done == size:
                return
            failures = 0 if done > before else failures + 1
            if failures >= ATTEMPTS - 1:
                raise ServerError(
                    f"the download of {digest} broke off after {done} of {size} bytes"
                    + (f": {broken}" if broken else "") + "; try again"
                )
            self._pause(failures, retry)

    def _pause(self, failures: int, retry: Retry | None) -> None:
        seconds = self._transport.pause(failures)
        if retry is not None:
            retry(seconds)
        self._transport.wait(seconds)

    def _part(self, digest: str, start: int) -> Iterator[bytes]:
        """What one answer has of the blob from *start* on."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        answer = self._ask("GET", f"{self.root}/blobs/{digest}", headers)
        whole = False
        try:
            if answer.status == 416 and start:
                raise ServerError(f"the registry {self.endpoint.host} has only {start} bytes of {digest}: fewer than "
                                  "its manifest promises")
            if answer.status not in (200, 206):
                raise self._failure(answer.status, bounded(answer, TEXT_LIMIT), digest)
            if answer.status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise ServerError(f"the registry {self.endpoint.host} sent another part of {digest} than was asked for")
            skip = start if answer.status == 200 else 0  # the registry does not know ranges: from the beginning
            for piece in answer.stream(_PIECE):
                self._transport.check_stopped()
                cut = min(skip, len(piece))
                skip -= cut
                if cut < len(piece):
                    yield piece[cut:] if cut else piece
            whole = True
        finally:
            if not whole:
                answer.close()
            answer.release_conn()

    def piece(self, digest: str, start: int, size: int) -> bytes:
        """*size* bytes of a blob from *start* on, by one request.

        Raises:
            ServerError: the registry gave something else; some do not know ranges.
        """
        answer = self._ask("GET", f"{self.root}/blobs/{digest}", {"Range": f"bytes={start}-{start + size - 1}"})
        if answer.status == 200:
            answer.close()
            answer.release_conn()
            raise ServerError(f"the registry {self.endpoint.host} gives no parts of blobs")
        data = self._small(answer, size)
        if answer.status != 206:
            raise self._failure(answer.status, data[:TEXT_LIMIT], digest)
        if len(data) != size or not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise ServerError(f"the registry {self.endpoint.host} sent another part of {digest} than was asked for")
        return data

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has the blob already."""
        answer = self._ask("HEAD", f"{self.root}/blobs/{digest}")
        drain(answer)
        if answer.status in (401, 403):
            raise self._failure(answer.status, b"", digest)
        return answer.status == 200

    # --- uploads ------------------------------------------------------------------------------------------------
    def mount(self, digest: str, source: str) -> str:
        """Take the blob over from the repository *source*. Returns "" when that was done, else where to upload it."""
        url = f"{self.root}/blobs/uploads/?mount={quote(digest, safe=':')}&from={quote(source, safe='')}"
        answer = self._ask("POST", url, body=b"")
        data = self._small(answer, TEXT_LIMIT)
        if answer.status == 201:
            return ""
        if answer.status == 202:
            return self._location(answer)
        if answer.status in (401, 403):
            raise self._failure(answer.status, data, digest)
        return self._begin()

    def upload(self, blob: Outgoing, session: str = "") -> None:
        """Bring a blob there: small ones by one PUT, others in chunks; what broke is taken up where it broke.

        *session*: an upload that a refused mount has begun.

        Raises:
            ServerError: the registry did not take it.
        """
        failures = 0
        while True:
            try:
                self._upload(session or self._begin(), blob)
                return
            except _Broken as error:
                failures += 1
                if failures >= ATTEMPTS:
                    raise ServerError(f"the upload of {blob.digest} failed: {error}") from error
                session = ""
                self._pause(failures, blob.retry)

    def _begin(self) -> str:
        answer = self._ask("POST", f"{self.root}/blobs/uploads/", body=b"")
        data = self._small(answer, TEXT_LIMIT)
        if answer.status != 202:
            raise self._failure(answer.status, data, "")
        return self._location(answer)

    def _location(self, answer: Answer, otherwise: str = "") -> str:
        place = answer.headers.get("Location", "")
        if not place and not otherwise:
            raise ServerError(f"the registry {self.endpoint.host} does not say where to upload to")
        url = urljoin(f"{self.root}/blobs/uploads/", place) if place else otherwise
        self._transport.check_address(url)
        return url

    def _upload(self, session: str, blob: Outgoing) -> None:
        if blob.size > _WHOLE:
            session = self._chunks(session, blob)
            body, length = b"", 0
        else:
            body, length = b"".join(blob.pieces(0)), blob.size
        url = f"{session}{'&' if '?' in session else '?'}digest={quote(blob.digest, safe=':')}"
        headers = {"Content-Type": "application/octet-stream"} if length else {}
        answer = self._ask("PUT", url, headers, body=body)
        data = self._small(answer, TEXT_LIMIT)
        if answer.status in (404, 416):
            raise _Broken(f"the registry has forgotten the upload (status {answer.status})")
        if answer.status not in (201, 202, 204):
            raise self._failure(answer.status, data, blob.digest)
        blob.tell(blob.size)

    def _chunks(self, session: str, blob: Outgoing) -> str:
        done, failures = 0, 0
        while done < blob.size:
            end = min(done + _CHUNK, blob.size)
            headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{done}-{end - 1}"}
            body = _chunk(blob, done, end)
            try:
                answer = self._ask("PATCH", session, headers, body=body, size=end - done, once=True)
                data = self._small(answer, TEXT_LIMIT)
                status = answer.status
            except ServerError as error:
                status, data, answer = 0, error.message.encode(), None
            if answer is not None and status in (201, 202, 204):
                session, done, failures = self._location(answer, session), end, 0
                continue
            failures += 1
            if status not in (0, 416, 429, 500, 502, 503, 504):
                if status == 404:
                    raise _Broken("the registry has forgotten the upload")
                raise self._failure(status, data, "")
            if failures >= ATTEMPTS:
                why = data.decode(errors="replace")
                raise ServerError(f"the upload broke off after {done} of {blob.size} bytes: {why}")
            self._pause(failures, blob.retry)
            session, done = self._where(session)
        return session

    def _where(self, session: str) -> tuple[str, int]:
        """How far an upload has come, as the registry sees it."""
        answer = self._ask("GET", session)
        data = self._small(answer, TEXT_LIMIT)
        if answer.status not in (200, 202, 204):
            raise _Broken(f"it broke off, and the registry does not know how far it came ({answer.status})")
        found = _RANGE.fullmatch(answer.headers.get("Range", "").strip())
        if found is None and data:
            raise _Broken("the registry does not say how far it came")
        return self._location(answer, session), int(found[1]) + 1 if found and found[1] != "0" else 0

    def put_manifest(self, which: str, data: bytes, media_type: str) -> bool:
        """Give *which* (a tag or the digest) its manifest. Returns whether the registry noted its subject.

        Raises:
            ServerError: the registry did not take it; its reason is in the message.
        """
        answer = self._ask("PUT", f"{self.root}/manifests/{which}", {"Content-Type": media_type}, body=data)
        said = self._small(answer, TEXT_LIMIT)
        if answer.status not in (201, 202):
            raise self._failure(answer.status, said, which)
        digest = answer.headers.get("Docker-Content-Digest", "")
        if is_digest(digest) and digest != digest_of(data):
            raise ServerError(f"the registry {self.endpoint.host} took the manifest as {digest}, not {digest_of(data)}")
        return "OCI-Subject" in answer.headers

    def enter_referrer(self, data: bytes) -> None:
        """Enter a manifest in the list of its subject: the tag that stands in where a registry has no referrers API."""
        manifest = decode_manifest(data)
        if not isinstance(manifest, Manifest) or manifest.subject is None:
            return
        kind = manifest.artifact_type or manifest.config.media_type
        entry = {"mediaType": manifest.media_type or MANIFESTS[0], "digest": digest_of(data), "size": len(data),
                 "artifactType": kind, **({"annotations": manifest.annotations} if manifest.annotations else {})}
        tag = manifest.subject.digest.replace(":", "-", 1)
        # Asked for first: where we may push, a registry\'s 404 is told as a refusal.
        old = _entries(self.manifest(tag).data) if self.head(tag) is not None else []
        entries = [one for one in old if one.get("digest") != entry["digest"]]
        index = encode({"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": [*entries, entry]})
        self.put_manifest(tag, index, INDEXES[0])

    # --- failures -----------------------------------------------------------------------------------------------
    def _denied(self, why: str) -> EngineError:
        if why.startswith("unauthorized"):
            return Unauthorized(why)
        if why.startswith("no basic"):
            return ServerError(why)
        if self._push:
            return Forbidden(why if why.startswith("denied") else f"denied: {why}")
        return NotFound(
            f"pull access denied for {self.reference.familiar_name}, repository does not exist or may require "
            f"'docker login': {why}"
        )

    def _failure(self, status: int, body: bytes, which: str) -> EngineError:
        name, host = self.reference.familiar_name, self.endpoint.host
        code, text = _first_error(body)
        if status == 404 and not self._push and code == "NAME_UNKNOWN":
            why = text or "repository name not known to registry"
            return NotFound(f"repository {name} not found: name unknown: {why}")
        if status == 404 and which and not self._push:
            mark = "@" if is_digest(which) else ":"
            why = text if code == "MANIFEST_UNKNOWN" and text else "manifest unknown"
            return NotFound(f"manifest for {name}{mark}{which} not found: manifest unknown: {why}")
        if status in (401, 403, 404):
            return self._denied(f"denied: {text or 'requested access to the resource is denied'}")
        if status == 429:
            return Unavailable(
                f"the registry {host} refuses more requests for now (toomanyrequests); try again later or sign in"
            )
        if status == 413:
            return ServerError(f"the registry {host} refuses what is so large (413) for {name}")
        if status == 405:
            return ServerError(f"the registry {host} does not allow this for {name} (405): it may be read-only")
        said = ": ".join(part for part in (code.lower().replace("_", " "), text) if part)
        return ServerError(f"the registry {host} answered {status} for {name}" + (f": {said}" if said else ""))


def _chunk(blob: Outgoing, start: int, end: int) -> Callable[[], Iterator[bytes]]:
    def give() -> Iterator[bytes]:
        at = start
        for piece in blob.pieces(start):
            part = piece[: end - at]
            if not part:
                return
            yield part
            at += len(part)
            blob.tell(at)
            if at == end:
                return

    return give


def _length(answer: Answer) -> int:
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _tags_in(data: bytes) -> list[str]:
    try:
        tags = json.loads(data).get("tags") or []
    except (ValueError, AttributeError, RecursionError) as error:
        raise ServerError(f"the registry's list of tags is not JSON: {error}") from error
    return [tag for tag in tags if isinstance(tag, str)]


def _entries(data: bytes) -> list[dict[str, Any]]:
    """The entries of an index as they are, unknown fields and all; none where it is no index."""
    try:
        found = json.loads(data).get("manifests")
    except (ValueError, AttributeError, RecursionError):
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _first_error(body: bytes) -> tuple[str, str]:
    """The first error of a registry's answer as code and message; empty where there is none."""
    try:
        first = json.loads(body)["errors"][0]
        return str(first.get("code", ""))[:100], str(first.get("message", ""))[:500]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return "", ""
