"""Debian's notary server on loopback, its trust data in memory: what DOCKER_CONTENT_TRUST=1 talks to."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from app.own_registry import certificates
from tests.support.registry import free_port


@contextlib.contextmanager
def notary(at: Path) -> Iterator[dict[str, str]]:
    """Yields the variables that make a docker client whose DOCKER_CONFIG is *at*/docker use it.

    Raises:
        LookupError: notary is not installed.
    """
    program = shutil.which("notary-server")
    if program is None:
        raise LookupError("notary-server is not installed")
    port = free_port()
    root = certificates.make_root("notary of the tests")
    server = certificates.make_server(root, ["127.0.0.1"])
    (at / "cert.pem").write_bytes(server.certificate)
    (at / "key.pem").write_bytes(server.key)
    trusted = at / "docker/tls" / f"127.0.0.1:{port}"
    trusted.mkdir(parents=True)
    (trusted / "ca.crt").write_bytes(root.certificate)
    (at / "notary.json").write_text(json.dumps({
        "server": {"http_addr": f"127.0.0.1:{port}", "tls_key_file": f"{at}/key.pem", "tls_cert_file": f"{at}/cert.pem"},
        "trust_service": {"type": "local", "hostname": "", "port": "", "key_algorithm": "ecdsa"},
        "storage": {"backend": "memory"}, "logging": {"level": "error"}}))
    with open(at / "notary.log", "wb") as log:
        process = subprocess.Popen([program, "-config", f"{at}/notary.json"], stdout=log, stderr=log)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"notary-server did not start: {(at / 'notary.log').read_text()}")
        yield {"DOCKER_CONFIG": f"{at}/docker", "HOME": str(at), "DOCKER_CONTENT_TRUST": "1", "DOCKER_CONTENT_TRUST_SERVER": f"https://127.0.0.1:{port}",
               "DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE": "a root word", "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE": "a repository word"}
    finally:
        process.terminate()
        process.wait(10)
