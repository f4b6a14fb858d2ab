"""A registry spoken to by the OCI distribution-spec: manifests and blobs, tokens, redirects, broken downloads resumed.

All of it blocks and runs in worker threads. Rules of safety: what arrives is bounded; credentials go to the registry
that they are for and to its token server, and to no other host; no plain http but to a literal loopback address or a
registry that was named insecure.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from backend.errors import EngineError, NotFound, ServerError, Unavailable
from backend.images.types import RegistryAuth, RegistrySettings
from backend.spec.image import DOCKER_SCHEMA1, DOCUMENT_LIMIT, INDEXES, MANIFESTS, digest_of
from backend.spec.reference import HUB, Reference

_HUB_HOST = "registry-1.docker.io"
_TIMEOUT = (20.0, 60.0)  # seconds to connect, and between two pieces of an answer
_PIECE = 1 << 17
_REDIRECTS, _ATTEMPTS = 5, 5
_TOKEN_LIMIT = 1 << 20
_RETRY_AFTER_LIMIT = 60.0  # a registry may ask for patience, not for for ever
_BUSY = (429, 500, 502, 503, 504)
_ACCEPT = ", ".join((*MANIFESTS, *INDEXES, *DOCKER_SCHEMA1))
_CHALLENGE = re.compile(r'([a-zA-Z_]+)="((?:[^"\\]|\\.)*)"|([a-zA-Z_]+)=([^",\s]+)')
_SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"


class Stopped(Exception):
    """The pull was cancelled while a thread worked for it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to a registry. *insecure*: plain http and unknown certificates are allowed."""

    host: str
    insecure: bool
    mirror: bool = False
    scheme: str = ""  # "" = https first, then http where that is allowed
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest as it came. *media_type* is the registry's word for it."""

    data: bytes
    digest: str
    media_type: str


def endpoints(reference: Reference, settings: RegistrySettings) -> list[Endpoint]:
    """Where to ask for *reference*, in order: docker.io's mirrors, then the registry."""
    found = []
    if reference.registry == HUB:
        for mirror in settings.mirrors:
            parts = urlsplit(mirror if "//" in mirror else f"https://{mirror}")
            insecure = _is_insecure(parts.netloc, settings)
            if parts.scheme == "http" and not insecure:
                continue  # a mirror off this machine must be named by --insecure-registry as well
            found.append(Endpoint(parts.netloc, insecure, True, parts.scheme, parts.path.rstrip("/")))
        return [*found, Endpoint(_HUB_HOST, False)]
    return [Endpoint(reference.registry, _is_insecure(reference.registry, settings))]


def _is_insecure(host: str, settings: RegistrySettings) -> bool:
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


class Registry:
    """One repository at one endpoint. Thread-safe; close it when done."""

    def __init__(
        self, endpoint: Endpoint, reference: Reference, auth: RegistryAuth | None, stop: threading.Event
    ) -> None:
        self.endpoint = endpoint
        self.reference = reference
        self._auth = None if endpoint.mirror else auth  # credentials are for the registry, not for its mirrors
        self._stop = stop
        self._scheme = endpoint.scheme
        self._authorization = ""
        self._lock = threading.Lock()
        self._session = requests.Session()
        self._session.trust_env = False  # no ~/.netrc of root, no REQUESTS_CA_BUNDLE
        adapter = HTTPAdapter(pool_connections=4, pool_maxsize=8, max_retries=0)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)
        self._session.headers["User-Agent"] = "slipway"
        self._session.headers["Accept-Encoding"] = "identity"

    def close(self) -> None:
        """Drop the connections."""
        self._session.close()

    @property
    def root(self) -> str:
        """The address of the repository, for messages too."""
        return f"{self._scheme or 'https'}://{self.endpoint.host}{self.endpoint.prefix}/v2/{quote(self.reference.path)}"

    def connect(self) -> None:
        """Find the scheme that the registry speaks. Raises :class:`ServerError` with the reason when that fails."""
        if self._scheme:
            return
        url = f"{{}}://{self.endpoint.host}/v2/"
        try:
            self._send("GET", url.format("https"), {}).close()
            self._scheme = "https"
        except requests.ConnectionError as error:
            if not self.endpoint.insecure:
                raise _unreachable(url.format("https"), error) from error
            try:
                self._send("GET", url.format("http"), {}).close()
            except requests.RequestException as second:
                raise _unreachable(url.format("http"), second) from second
            self._scheme = "http"
        except requests.RequestException as error:
            raise _unreachable(url.format("https"), error) from error

    # --- requests -----------------------------------------------------------------------------------------------
    def _send(
        self, method: str, url: str, headers: Mapping[str, str], data: Mapping[str, str] | None = None
    ) -> requests.Response:
        if self._stop.is_set():
            raise Stopped
        proxies = requests.utils.get_environ_proxies(url)
        roots = os.environ.get("SSL_CERT_FILE") or (_SYSTEM_ROOTS if os.path.exists(_SYSTEM_ROOTS) else True)
        verify = False if self.endpoint.insecure and _host(url) == self.endpoint.host else roots
        return self._session.request(
            method,
            url,
            headers=dict(headers),
            data=data,
            stream=True,
            timeout=_TIMEOUT,
            allow_redirects=False,
            verify=verify,
            proxies=proxies,
        )

    def _get(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        """GET with tokens, redirects and patience; any status that is left is the caller's."""
        refused = 0
        for attempt in range(_ATTEMPTS):
            try:
                answer = self._follow(url, headers)
            except requests.RequestException as error:
                if attempt == _ATTEMPTS - 1 or _refused(error):
                    raise _unreachable(url, error) from error
                self._wait(2.0**attempt / 4)
                continue
            if answer.status_code == 401 and refused < 2:
                refused += 1
                challenge = answer.headers.get("WWW-Authenticate", "")
                answer.close()
                self._authenticate(challenge, fresh=refused == 1)
                continue
            if answer.status_code in _BUSY and attempt < _ATTEMPTS - 1:
                pause = _retry_after(answer, 2.0**attempt / 4)
                answer.close()
                self._wait(pause)
                continue
            return answer
        raise Unavailable(f"the registry {self.endpoint.host} did not answer in {_ATTEMPTS} attempts; try again later")

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped

    def _follow(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        origin = _origin(url)
        for _ in range(_REDIRECTS + 1):
            sent = dict(headers)
            if self._authorization and _origin(url) == origin:
                sent["Authorization"] = self._authorization
            answer = self._send("GET", url, sent)
            if answer.status_code not in (301, 302, 303, 307, 308):
                return answer
            target = urljoin(url, answer.headers.get("Location", ""))
            answer.close()
            self._check_address(target)
            url = target
        raise ServerError(f"the registry {self.endpoint.host} redirects without end")

    def _check_address(self, url: str) -> None:
        parts = urlsplit(url)
        plain_allowed = self.endpoint.insecure and (
            parts.netloc == self.endpoint.host or is_loopback(parts.hostname or "")
        )
        if parts.scheme != "https" and not (parts.scheme == "http" and plain_allowed):
            raise ServerError(
                f"the registry {self.endpoint.host} sends us to {parts.scheme}://{parts.netloc}, which is not "
                "encrypted; refused"
            )

    # --- authorisation ------------------------------------------------------------------------------------------
    def _authenticate(self, challenge: str, *, fresh: bool) -> None:
        kind, _, rest = challenge.partition(" ")
        fields = {(a or c).lower(): (b or d) for a, b, c, d in _CHALLENGE.findall(rest)}
        with self._lock:
            if not fresh:
                raise _denied(self.reference, "unauthorized: the registry does not accept these credentials")
            if kind.lower() == "basic":
                if self._auth is None or not self._auth.username:
                    raise _denied(self.reference, "no basic auth credentials")
                self._authorization = requests.auth._basic_auth_str(self._auth.username, self._auth.password)
            elif kind.lower() == "bearer" and fields.get("realm"):
                self._authorization = f"Bearer {self._token(fields)}"
            else:
                raise _denied(self.reference, "unauthorized: authentication required")

    def _token(self, fields: Mapping[str, str]) -> str:
        """A token for pulling: oauth2 with an identity token, else the token server's GET, with or without a login."""
        if self._auth is not None and self._auth.registry_token:
            return self._auth.registry_token
        realm = fields["realm"]
        self._check_address(realm)
        scope = fields.get("scope") or f"repository:{self.reference.path}:pull"
        try:
            if self._auth is not None and self._auth.identity_token:
                answer = self._send(
                    "POST",
                    realm,
                    {},
                    {
                        "grant_type": "refresh_token",
                        "refresh_token": self._auth.identity_token,
                        "client_id": "slipway",
                        "service": fields.get("service", ""),
                        "scope": scope,
                    },
                )
            else:
                headers = {}
                query = f"scope={quote(scope)}" + (
                    f"&service={quote(fields['service'])}" if fields.get("service") else ""
                )
                if self._auth is not None and self._auth.username:
                    headers["Authorization"] = requests.auth._basic_auth_str(self._auth.username, self._auth.password)
                    query += f"&account={quote(self._auth.username)}"
                answer = self._send("GET", f"{realm}{'&' if '?' in realm else '?'}{query}", headers)
            with answer:
                data = _bounded(answer, _TOKEN_LIMIT)
        except requests.RequestException as error:
            raise _unreachable(realm.partition("?")[0], error) from error
        if answer.status_code != 200:
            raise _denied(
                self.reference,
                "unauthorized: incorrect username or password"
                if self._auth
                else "denied: requested access to the resource is denied",
            )
        try:
            found = json.loads(data)
            token = found.get("token") or found.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token or not token.isprintable():
            raise ServerError(f"the token server of {self.endpoint.host} gave no token")
        return token

    # --- what is fetched ----------------------------------------------------------------------------------------
    def manifest(self, which: str) -> Fetched:
        """The manifest of a tag or digest.

        Raises:
            NotFound: in docker's words.
            ServerError: it is too large, or its digest is another one.
        """
        with self._get(f"{self.root}/manifests/{which}", {"Accept": _ACCEPT}) as answer:
            data = _bounded(answer, DOCUMENT_LIMIT)
            if answer.status_code != 200:
                raise self._failure(answer.status_code, data, which)
            kind = answer.headers.get("Content-Type", "")
        digest = digest_of(data)
        promised = which if which.startswith("sha256:") else answer.headers.get("Docker-Content-Digest", "")
        if promised.startswith("sha256:") and promised != digest:
            raise ServerError(f"manifest verification failed for digest {promised}: the registry sent {digest}")
        return Fetched(data, digest, kind.partition(";")[0].strip())

    def blob(self, digest: str, size: int) -> Iterator[bytes]:
        """The bytes of a blob; a broken download is resumed where it broke. More than *size* bytes are never given out.

        Raises:
            ServerError: too much or too little came.
        """
        done, failures = 0, 0
        while True:
            headers = {"Range": f"bytes={done}-"} if done else {}
            with self._get(f"{self.root}/blobs/{digest}", headers) as answer:
                if answer.status_code not in (200, 206):
                    raise self._failure(answer.status_code, _bounded(answer, _TOKEN_LIMIT), digest)
                skip = done if answer.status_code == 200 else 0  # the registry does not know ranges: from the start
                if answer.status_code == 206 and not answer.headers.get("Content-Range", "").startswith(
                    f"bytes {done}-"
                ):
                    raise ServerError(
                        f"the registry {self.endpoint.host} sent another part of {digest} than was asked for"
                    )
                before = done
                broken: requests.RequestException | None = None
                try:
                    for piece in answer.iter_content(_PIECE):
                        if self._stop.is_set():
                            raise Stopped
                        if skip:
                            cut = min(skip, len(piece))
                            skip -= cut
                            piece = piece[cut:]
                        done += len(piece)
                        if done > size:
                            raise ServerError(f"the registry sent more than the {size} bytes that {digest} has")
                        if piece:
                            yield piece
                except requests.RequestException as error:
                    broken = error
            if done == size:
                return
            failures = 0 if done > before else failures + 1
            if failures >= _ATTEMPTS - 1:
                raise ServerError(
                    f"the download of {digest} broke off after {done} of {size} bytes"
                    + (f": {_reason(broken)}" if broken else "")
                    + "; try again"
                )
            self._wait(2.0**failures / 4)

    def _failure(self, status: int, body: bytes, which: str) -> EngineError:
        name = self.reference.familiar_name
        code, text = _first_error(body)
        if status == 404 and code != "NAME_UNKNOWN" and not which.startswith("sha256:"):
            return NotFound(f"manifest for {name}:{which} not found: manifest unknown: manifest unknown")
        if status == 404 and code != "NAME_UNKNOWN":
            return NotFound(f"manifest for {name}@{which} not found: manifest unknown: manifest unknown")
        if status in (401, 403, 404):
            return _denied(self.reference, f"{text or 'requested access to the resource is denied'}")
        if status == 429:
            return Unavailable(
                f"the registry {self.endpoint.host} refuses more requests for now (toomanyrequests); "
                "try again later or sign in"
            )
        return ServerError(
            f"the registry {self.endpoint.host} answered {status} for {name}" + (f": {text}" if text else "")
        )


def _denied(reference: Reference, why: str) -> EngineError:
    if why.startswith(("unauthorized", "no basic")):
        return ServerError(why)
    return NotFound(
        f"pull access denied for {reference.familiar_name}, repository does not exist or may require "
        f"'docker login': {why}"
    )


def _first_error(body: bytes) -> tuple[str, str]:
    """The first error of a registry's answer as code and message; empty where there is none."""
    try:
        first = json.loads(body)["errors"][0]
        return str(first.get("code", ""))[:100], str(first.get("message", ""))[:500]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return "", ""


def _bounded(answer: requests.Response, limit: int) -> bytes:
    """A small body. Raises :class:`ServerError` beyond *limit*: some registries send without end."""
    out = bytearray()
    for piece in answer.iter_content(1 << 16):
        out += piece
        if len(out) > limit:
            raise ServerError(f"the registry sent a document of more than {limit >> 20} MiB; refused")
    return bytes(out)


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _retry_after(answer: requests.Response, otherwise: float) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), _RETRY_AFTER_LIMIT) if text.isascii() and text.isdigit() else otherwise


def _refused(error: BaseException) -> bool:
    return "Connection refused" in str(error)


def _reason(error: BaseException) -> str:
    """The system's own words at the bottom of an error of requests and urllib3."""
    text = str(error)
    for pattern, words in (
        (r"Connection refused", "connect: connection refused"),
        (
            r"Name or service not known|Temporary failure in name resolution|No address associated",
            "lookup: no such host",
        ),
        (r"Network is unreachable", "connect: network is unreachable"),
        (r"timed out", "i/o timeout"),
        (r"CERTIFICATE_VERIFY_FAILED[^)]*", "tls: failed to verify certificate"),
        (r"WRONG_VERSION_NUMBER|record layer failure", "http: server gave HTTP response to HTTPS client"),
    ):
        if re.search(pattern, text):
            return words
    return re.sub(r"<[^>]*object at 0x[0-9a-f]+>:? ?", "", text)[:300]


def _unreachable(url: str, error: BaseException) -> EngineError:
    parts = urlsplit(url)
    why = _reason(error)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    dial = f"dial tcp {parts.hostname}:{port}: " if why.startswith(("connect", "lookup", "i/o")) else ""
    return ServerError(f'Get "{parts.scheme}://{parts.netloc}/v2/": {dial}{why}')
