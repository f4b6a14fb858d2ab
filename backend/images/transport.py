"""Requests to one registry: tokens, redirects, patience. Blocks; runs in worker threads.

Rules of safety: what arrives is bounded; credentials go to the registry that they are for and to its token server, and
to no other host; every wait has an end. urllib3 and not requests: it takes a TLS context a host and a body that can be
read again, and costs the helper half the memory.
"""

from __future__ import annotations

import base64
import email.utils
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from backend.errors import EngineError, ServerError, Unavailable
from backend.images.hosts import Endpoint, is_loopback, proxy_for, tls_context
from backend.images.types import RegistryAuth, RegistrySettings

_CONNECT = 20.0  # seconds
_REDIRECTS, ATTEMPTS = 5, 5
TEXT_LIMIT = 1 << 20  # bytes of an error or a token
_RETRY_AFTER_LIMIT = 60.0  # a registry may ask for patience, not for for ever
_BUSY = (429, 500, 502, 503, 504)
_MOVED = (301, 302, 303, 307, 308)
_CHALLENGE = re.compile(r'([a-zA-Z_]+)="((?:[^"\\]|\\.)*)"|([a-zA-Z_]+)=([^",\s]+)')
_SCHEME_KEPT = 300.0  # seconds that we remember which scheme a registry without TLS speaks

Answer = urllib3.BaseHTTPResponse
#: A body that can be sent again: bytes, or what gives its pieces afresh.
Body = bytes | Callable[[], Iterable[bytes]] | None

_schemes: dict[str, tuple[str, float]] = {}


class Stopped(Exception):
    """The work was cancelled while a thread worked for it."""


class Denied(Exception):
    """The registry does not let us; the text is the registry's word for it, or docker's."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. *size*: bytes of the body where it comes in pieces. *once*: not sent again when it fails."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Body = None
    size: int = 0
    once: bool = False


class Transport:
    """A connection pool to one registry with its authorisation. Thread-safe; close it when done."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: RegistrySettings,
        auth: RegistryAuth | None,
        scopes: Iterable[str],
        stop: threading.Event,
    ) -> None:
        """*scopes*: what tokens are asked for, as ``repository:PATH:pull``."""
        self.endpoint = endpoint
        self._settings = settings
        self._auth = None if endpoint.mirror else auth  # credentials are for the registry, not for its mirrors
        self._scopes = tuple(scopes)
        self._stop = stop
        self._authorization = ""
        self._signing_in = threading.Lock()  # held while a token is fetched, so that one is fetched for all threads
        self._pools_lock = threading.Lock()
        self._pools: dict[tuple[str, str], urllib3.PoolManager] = {}
        self._timeout = urllib3.Timeout(connect=_CONNECT, read=settings.stall)
        known, until = _schemes.get(endpoint.host, ("", 0.0))
        self.scheme = endpoint.scheme or ("" if endpoint.insecure else "https")
        if not self.scheme and until > time.monotonic():
            self.scheme = known

    def close(self) -> None:
        """Drop the connections."""
        for pool in self._pools.values():
            pool.clear()

    @property
    def base(self) -> str:
        """The address of the registry."""
        return f"{self.scheme or 'https'}://{self.endpoint.host}{self.endpoint.prefix}/v2/"

    def connect(self) -> None:
        """Find the scheme that the registry speaks. Raises :class:`ServerError` with the reason when that fails."""
        if self.scheme:
            return
        url = f"https://{self.endpoint.host}/v2/"
        try:
            self._send(Request("GET", url, {})).close()
            self.scheme = "https"
        except HTTPError as error:
            if not self._plain_allowed:
                raise unreachable(url, error) from error
            self._connect_plainly()
        _schemes[self.endpoint.host] = (self.scheme, time.monotonic() + _SCHEME_KEPT)

    def _connect_plainly(self) -> None:
        url = f"http://{self.endpoint.host}/v2/"
        try:
            self._send(Request("GET", url, {})).close()
        except HTTPError as error:
            raise unreachable(url, error) from error
        self.scheme = "http"

    @property
    def _plain_allowed(self) -> bool:
        """A registry whose own root certs.d names is never spoken to without TLS."""
        context = tls_context(self.endpoint.host, self._settings, insecure=self.endpoint.insecure)
        return self.endpoint.insecure and not context.check_hostname

    # --- requests -----------------------------------------------------------------------------------------------
    def request(self, method: str, url: str, headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
        """An answer, after tokens, redirects and patience; any status that is left is the caller's, and so is closing.

        Raises:
            ServerError: the registry cannot be reached or misbehaves.
            Denied: it wants credentials that we do not have.
            Stopped: the work was cancelled.
        """
        wish = Request(method, url, headers or {}, **more)
        refused = 0
        for attempt in range(ATTEMPTS):
            last = wish.once or attempt == ATTEMPTS - 1
            used = self._authorization
            try:
                answer = self._follow(wish)
            except HTTPError as error:
                if last or "Connection refused" in str(error):
                    self._forget_scheme()
                    raise unreachable(url, error) from error
                self.wait(self.pause(attempt))
                continue
            if answer.status == 401:
                challenge = answer.headers.get("WWW-Authenticate", "")
                drain(answer)
                refused += 1
                self._authenticate(challenge, used, final=refused > 2)
            elif answer.status in _BUSY and not last:
                pause = _retry_after(answer, self.pause(attempt))
                drain(answer)
                self.wait(pause)
            else:
                return answer
        raise Unavailable(f"the registry {self.endpoint.host} did not answer in {ATTEMPTS} attempts; try again later")

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        return float(2.0**failures * self._settings.pause)

    def wait(self, seconds: float) -> None:
        """Sleep, but not past the end of the work. Raises :class:`Stopped`."""
        if self._stop.wait(seconds):
            raise Stopped

    def check_stopped(self) -> None:
        """Raises :class:`Stopped` when the work was cancelled."""
        if self._stop.is_set():
            raise Stopped

    def _forget_scheme(self) -> None:
        _schemes.pop(self.endpoint.host, None)

    def _send(self, wish: Request) -> Answer:
        self.check_stopped()
        body = wish.body() if callable(wish.body) else wish.body
        headers = {"User-Agent": "slipway", "Accept-Encoding": "identity", **wish.headers}
        if wish.body is not None:
            headers["Content-Length"] = str(wish.size if callable(wish.body) else len(wish.body))
        return self._pool(wish.url).request(
            wish.method, wish.url, body=body, headers=headers, preload_content=False, redirect=False, retries=False,
            decode_content=False, timeout=self._timeout,
        )

    def _pool(self, url: str) -> urllib3.PoolManager:
        """A pool a proxy and, for TLS, a host: each has its own certificates, and client keys go only to theirs."""
        parts = urlsplit(url)
        proxy = proxy_for(url, self._settings)
        key = (proxy, parts.netloc if parts.scheme == "https" else "")
        with self._pools_lock:
            if key not in self._pools:
                self._pools[key] = self._new_pool(parts.netloc if parts.scheme == "https" else "", proxy)
            return self._pools[key]

    def _new_pool(self, host: str, proxy: str) -> urllib3.PoolManager:
        insecure = self.endpoint.insecure and host == self.endpoint.host
        options: dict[str, Any] = {"maxsize": 8, "block": False}
        if host:
            options["ssl_context"] = tls_context(host, self._settings, insecure=insecure)
        if not proxy:
            return urllib3.PoolManager(**options)
        parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
        secret = f"{parts.username}:{parts.password or ''}" if parts.username else None
        address = f"{parts.scheme}://{parts.hostname}:{parts.port or 3128}"
        return urllib3.ProxyManager(address, proxy_headers=urllib3.make_headers(proxy_basic_auth=secret), **options)

    def _follow(self, wish: Request) -> Answer:
        origin, url = _origin(wish.url), wish.url
        for _ in range(_REDIRECTS + 1):
            headers = dict(wish.headers)
            if self._authorization and _origin(url) == origin == self._own_origin:
                headers["Authorization"] = self._authorization
            answer = self._send(Request(wish.method, url, headers, wish.body, wish.size))
            if answer.status not in _MOVED or "Location" not in answer.headers:
                return answer
            url = urljoin(url, answer.headers["Location"])
            drain(answer)
            self.check_address(url)
        raise ServerError(f"the registry {self.endpoint.host} redirects without end")

    @property
    def _own_origin(self) -> tuple[str, str]:
        return self.scheme or "https", self.endpoint.host

    def check_address(self, url: str) -> None:
        """Raises :class:`ServerError` where the registry sends us to what is not encrypted and should be."""
        parts = urlsplit(url)
        own = parts.netloc == self.endpoint.host
        near = is_loopback(parts.hostname or "") and is_loopback(urlsplit(f"//{self.endpoint.host}").hostname or "")
        if parts.scheme != "https" and not (parts.scheme == "http" and self.endpoint.insecure and (own or near)):
            raise ServerError(
                f"the registry {self.endpoint.host} sends us to {parts.scheme}://{parts.netloc}, which is not "
                "encrypted; refused"
            )

    # --- authorisation ------------------------------------------------------------------------------------------
    def _authenticate(self, challenge: str, used: str, *, final: bool) -> None:
        """A new authorisation after a 401 that *used* met. *final*: a fresh one did not help either."""
        kind, _, rest = challenge.partition(" ")
        fields = {(a or c).lower(): (b or d) for a, b, c, d in _CHALLENGE.findall(rest)}
        if final:
            # The word for a good token that does not open this repository: Docker Hub's for one that is not there.
            short = fields.get("error") == "insufficient_scope"
            raise Denied("denied: requested access to the resource is denied" if short else
                         "unauthorized: authentication required")
        with self._signing_in:
            if self._authorization != used:
                return  # another thread was faster
            if kind.lower() == "basic":
                if self._auth is None or not self._auth.username:
                    raise Denied("no basic auth credentials")
                if used:
                    raise Denied("unauthorized: the registry does not accept these credentials")
                self._authorization = _basic(self._auth)
            elif kind.lower() == "bearer" and fields.get("realm"):
                self._authorization = f"Bearer {self._token(fields)}"
            else:
                raise Denied("unauthorized: authentication required")

    def _token(self, fields: Mapping[str, str]) -> str:
        """A token: by oauth2 with an identity token, else by the token server's GET, with or without a login."""
        if self._auth is not None and self._auth.registry_token:
            return self._auth.registry_token
        realm = fields["realm"]
        self.check_address(realm)
        wanted = [one for one in fields.get("scope", "").split() if not _covered(one, self._scopes)]
        scopes = (*self._scopes, *wanted)
        try:
            if self._auth is not None and self._auth.identity_token:
                answer = self._send(self._refresh(realm, fields, scopes))
            else:
                answer = self._send(self._sign_in(realm, fields, scopes))
            data = bounded(answer, TEXT_LIMIT)
        except HTTPError as error:
            raise unreachable(realm.partition("?")[0], error) from error
        if answer.status != 200:
            known = self._auth is not None
            raise Denied(
                "unauthorized: incorrect username or password" if known else
                "denied: requested access to the resource is denied"
            )
        return self._token_in(data)

    def _refresh(self, realm: str, fields: Mapping[str, str], scopes: tuple[str, ...]) -> Request:
        assert self._auth is not None
        form = {"grant_type": "refresh_token", "refresh_token": self._auth.identity_token, "client_id": "slipway",
                "service": fields.get("service", ""), "scope": " ".join(scopes)}
        return Request("POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(form).encode())

    def _sign_in(self, realm: str, fields: Mapping[str, str], scopes: tuple[str, ...]) -> Request:
        query = [("service", fields["service"])] if fields.get("service") else []
        query += [("scope", scope) for scope in scopes]
        headers = {}
        if self._auth is not None and self._auth.username:
            headers["Authorization"] = _basic(self._auth)
            query.append(("account", self._auth.username))
        return Request("GET", f"{realm}{'&' if '?' in realm else '?'}{urlencode(query, quote_via=quote)}", headers)

    def _token_in(self, data: bytes) -> str:
        try:
            found = json.loads(data)
            token = found.get("token") or found.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
            raise ServerError(f"the token server of {self.endpoint.host} gave no token")
        return token


def _basic(auth: RegistryAuth) -> str:
    return "Basic " + base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()


def _covered(scope: str, ours: Iterable[str]) -> bool:
    """Whether *scope* is no more than what is asked for anyway."""
    resource, _, actions = scope.rpartition(":")
    return any(set(actions.split(",")) <= set(one.rpartition(":")[2].split(","))
               for one in ours if one.rpartition(":")[0] == resource)


def bounded(answer: Answer, limit: int) -> bytes:
    """A small body, its connection free again. Raises :class:`ServerError` beyond *limit*: some send without end."""
    out = bytearray()
    for piece in answer.stream(1 << 16):
        out += piece
        if len(out) > limit:
            answer.close()
            raise ServerError(f"the registry sent a document of more than {limit >> 20} MiB; refused")
    answer.release_conn()
    return bytes(out)


def drain(answer: Answer) -> None:
    """Done with *answer*: a short rest is read, so that the connection can be used again."""
    try:
        answer.read(1 << 16)
    except HTTPError:
        answer.close()
        return
    if int(answer.headers.get("Content-Length", "0") or "0") > 1 << 16:
        answer.close()
    answer.release_conn()


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _retry_after(answer: Answer, otherwise: float) -> float:
    text = answer.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), _RETRY_AFTER_LIMIT)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        return otherwise
    return min(max(moment - time.time(), otherwise), _RETRY_AFTER_LIMIT)


def reason(error: BaseException) -> str:
    """The system's own words at the bottom of an error of urllib3."""
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


def unreachable(url: str, error: BaseException) -> EngineError:
    """That *url* does not answer, as docker says it."""
    parts = urlsplit(url)
    why = reason(error)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    dial = f"dial tcp {parts.hostname}:{port}: " if why.startswith(("connect", "lookup", "i/o")) else ""
    return ServerError(f'Get "{parts.scheme}://{parts.netloc}/v2/": {dial}{why}')
