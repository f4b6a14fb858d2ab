"""Debian's docker-registry on loopback, with its state in a folder of its own; a token server for it."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.certificates import Pair

_CONFIG = """version: 0.1
log:
  level: error
storage:
  filesystem:
    rootdirectory: {at}/data
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
"""
USER, PASSWORD = "anna", "geheim"
_HTPASSWD = "anna:$2b$04$YdItipJ5xYGBr0cXQ4g9ZeKjg11qS24vg4NqF0EsqKixMZ4iCiHDy\n"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def registry(*, password: bool = False, tls: Pair | None = None, tokens: TokenServer | None = None) -> Iterator[str]:
    """Yields ``127.0.0.1:PORT``. *password*: only USER with PASSWORD gets in; *tls*: its certificate; *tokens*: who signs.

    Raises:
        LookupError: docker-registry is not installed.
    """
    program = shutil.which("docker-registry")
    if program is None:
        raise LookupError("docker-registry is not installed")
    at = tempfile.mkdtemp(prefix="slipway-registry-")
    port = free_port()
    config = _CONFIG.format(at=at, port=port)
    if tls is not None:
        config += f"  tls:\n    certificate: {tls.certificate}\n    key: {tls.key}\n"
    if password:
        Path(at, "htpasswd").write_text(_HTPASSWD)
        config += f"auth:\n  htpasswd:\n    realm: tests\n    path: {at}/htpasswd\n"
    if tokens is not None:
        config += (f"auth:\n  token:\n    realm: {tokens.realm}\n    service: tests\n    issuer: tests\n"
                   f"    rootcertbundle: {tokens.certificate}\n")
    Path(at, "config.yml").write_text(config)
    with open(f"{at}/log", "wb") as log:
        process = subprocess.Popen([program, "serve", f"{at}/config.yml"], stdout=log, stderr=log)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"docker-registry did not start: {Path(at, 'log').read_text()}")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(at, ignore_errors=True)


class TokenServer:
    """Signs bearer tokens for USER with PASSWORD, and for anybody tokens that allow to pull. ``asked``: the scopes."""

    def __init__(self, folder: str) -> None:
        import datetime

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.x509.oid import NameOID

        self.asked: list[tuple[str, ...]] = []
        self._key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "token server of the tests")])
        now = datetime.datetime.now(datetime.UTC)
        made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self._key.public_key())
                .serial_number(1).not_valid_before(now - datetime.timedelta(hours=1))
                .not_valid_after(now + datetime.timedelta(days=1))
                .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
                .sign(self._key, hashes.SHA256()))
        self._der = made.public_bytes(serialization.Encoding.DER)
        self.certificate = f"{folder}/token.crt"
        Path(self.certificate).write_bytes(made.public_bytes(serialization.Encoding.PEM))
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self._server.server_address[1]}/token"

    def __enter__(self) -> TokenServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        scopes = tuple(parse_qs(urlsplit(request.path).query).get("scope", []))
        self.asked.append(scopes)
        given = request.headers.get("Authorization", "")
        known = given == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if given and not known:
            request.send_error(401)
            return
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = [one for one in actions.split(",") if known or one == "pull"]
            access.append({"type": kind, "name": name, "actions": allowed})
        body = json.dumps({"token": self._token(access), "expires_in": 60}).encode()
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _token(self, access: list[dict[str, object]]) -> str:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        def packed(data: bytes) -> str:
            return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(self._der).decode()]}
        claims = {"iss": "tests", "sub": USER, "aud": "tests", "exp": now + 60, "nbf": now - 120,
                  "iat": now - 120, "jti": str(time.time_ns()), "access": access}
        text = f"{packed(json.dumps(head).encode())}.{packed(json.dumps(claims).encode())}"
        return f"{text}.{packed(self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"
