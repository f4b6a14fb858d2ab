"""A registry in memory that does as the distribution-spec says, until a test tells it to lie."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import itertools
import json
import os
import re
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

MANIFEST, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
CONFIG, LAYER = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Liar:
    """Use as a context manager. ``host``: its address; ``seen``: (method, path, Authorization) of every request.

    ``lie(method, pattern, act)``: *act* answers the requests that fit, instead of the registry; it returns True when it
    did, and is asked *times* times at most.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.seen: list[tuple[str, str, str]] = []
        self._lies: list[list[Any]] = []
        self._lock = threading.Lock()
        self._sessions = itertools.count()
        self.released = threading.Event()  # what stalls, stalls until this
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _any(self) -> None:
                with contextlib.suppress(ConnectionError):
                    owner.handle_request(Talk(self))

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any

            def log_message(self, *_: object) -> None:
                """Silent."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Clients that leave are what we test."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Liar:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    # --- contents -------------------------------------------------------------------------------------------------
    def blob(self, data: bytes) -> dict[str, Any]:
        self.blobs[digest(data)] = data
        return {"digest": digest(data), "size": len(data)}

    def manifest(self, name: str, tag: str, document: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(document).encode()
        for which in (tag, digest(data)):
            self.manifests[f"{name}:{which}"] = (str(document.get("mediaType", MANIFEST)), data)
        return {"mediaType": document.get("mediaType", MANIFEST), "digest": digest(data), "size": len(data)}

    def image(self, name: str, tag: str, layers: list[bytes], *, config: dict[str, Any] | None = None, diff_ids: list[str] | None = None,
              change: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
        """An image of tars; *change* may spoil its manifest. Returns its descriptor."""
        document = {"architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "amd64"), "os": "linux",
                    "config": {"Cmd": ["/bin/true"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids or [digest(one) for one in layers]},
                    **(config or {})}
        rows = [{"mediaType": LAYER, **self.blob(gzip.compress(one, 1, mtime=0))} for one in layers]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": CONFIG, **self.blob(json.dumps(document).encode())},
                    "layers": rows}
        if change is not None:
            change(manifest)
        return self.manifest(name, tag, manifest)

    def lie(self, method: str, pattern: str, act: Callable[[Talk], bool], times: int = -1) -> None:
        self._lies.append([re.compile(pattern), method, act, times])

    # --- serving --------------------------------------------------------------------------------------------------
    def handle_request(self, talk: Talk) -> None:
        self.seen.append((talk.method, talk.path, talk.headers.get("Authorization", "")))
        for lie in self._lies:
            pattern, method, act, _ = lie
            if method not in (talk.method, "*") or not pattern.search(talk.path):
                continue
            with self._lock:
                if lie[3] == 0:
                    continue
                lie[3] -= 1
            if act(talk):
                return
        self.honest(talk)

    def honest(self, talk: Talk) -> None:
        """As the specification says."""
        if talk.path in ("/v2/", "/v2"):
            talk.say(200)
        elif found := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", talk.path):
            self._manifest(talk, found[1], found[2])
        elif found := re.fullmatch(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})", talk.path):
            self._blob(talk, found[2])
        elif found := re.fullmatch(r"/v2/(.+)/blobs/uploads/(.*)", talk.path):
            self._upload(talk, found[1], found[2])
        elif found := re.fullmatch(r"/v2/(.+)/tags/list", talk.path):
            tags = sorted(one.rpartition(":")[2] for one in self.manifests if one.startswith(f"{found[1]}:") and "sha256:" not in one)
            talk.say(200, json.dumps({"name": found[1], "tags": tags}).encode())
        else:
            talk.fail(404, "NOT_FOUND")

    def _manifest(self, talk: Talk, name: str, which: str) -> None:
        if talk.method == "PUT":
            data = talk.body()
            for each in (which, digest(data)):
                self.manifests[f"{name}:{each}"] = (talk.headers["Content-Type"], data)
            subject = json.loads(data).get("subject")
            talk.say(201, b"", {"Docker-Content-Digest": digest(data), "Location": f"/v2/{name}/manifests/{digest(data)}"})
            if subject:
                self.seen.append(("SUBJECT", subject["digest"], ""))
            return
        found = self.manifests.get(f"{name}:{which}")
        if found is None:
            talk.fail(404, "MANIFEST_UNKNOWN")
        else:
            talk.say(200, found[1], {"Content-Type": found[0], "Docker-Content-Digest": digest(found[1])})

    def _blob(self, talk: Talk, which: str) -> None:
        data = self.blobs.get(which)
        if data is None:
            talk.fail(404, "BLOB_UNKNOWN")
        elif found := re.fullmatch(r"bytes=(\d+)-", talk.headers.get("Range", "")):
            start = int(found[1])
            if start >= len(data):
                talk.fail(416, "RANGE_INVALID")
                return
            talk.say(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
        else:
            talk.say(200, data)

    def _upload(self, talk: Talk, name: str, session: str) -> None:
        place = {"Location": f"/v2/{name}/blobs/uploads/{session}"}
        if talk.method == "POST":
            talk.body()
            session = f"s{next(self._sessions)}"
            self.uploads[session] = bytearray()
            talk.say(202, b"", {"Location": f"/v2/{name}/blobs/uploads/{session}"})
            return
        if session not in self.uploads:
            talk.body()
            talk.fail(404, "BLOB_UPLOAD_UNKNOWN")
            return
        held = self.uploads[session]
        if talk.method == "GET":
            talk.say(204, b"", {**place, "Range": f"0-{max(len(held) - 1, 0)}"})
            return
        if talk.method == "PATCH" and (found := re.match(r"(\d+)-", talk.headers.get("Content-Range", ""))) and int(found[1]) != len(held):
            talk.body()
            talk.say(416, b"", {**place, "Range": f"0-{max(len(held) - 1, 0)}"})
            return
        talk.body_into(held)
        if talk.method == "PATCH":
            talk.say(202, b"", {**place, "Range": f"0-{max(len(held) - 1, 0)}"})
            return
        wanted = talk.query["digest"][0]
        if digest(bytes(held)) != wanted:
            talk.fail(400, "DIGEST_INVALID")
            return
        self.blobs[wanted] = bytes(held)
        del self.uploads[session]
        talk.say(201, b"", {"Location": f"/v2/{name}/blobs/{wanted}", "Docker-Content-Digest": wanted})


class Talk:
    """One request and its answer."""

    def __init__(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self._handler = handler
        parts = urlsplit(handler.path)
        self.method, self.path, self.query, self.headers = handler.command, parts.path, parse_qs(parts.query), handler.headers

    def body(self) -> bytes:
        return self._handler.rfile.read(int(self.headers.get("Content-Length") or 0))

    def body_into(self, target: bytearray) -> None:
        """What arrives, also when the client breaks off."""
        left = int(self.headers.get("Content-Length") or 0)
        while left and (piece := self._handler.rfile.read1(min(left, 1 << 16))):
            target += piece
            left -= len(piece)

    def say(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None, *, length: int | None = None) -> bool:
        self._handler.send_response(status)
        for name, value in (headers or {}).items():
            self._handler.send_header(name, value)
        if status not in (204, 304):
            self._handler.send_header("Content-Length", str(len(data) if length is None else length))
        self._handler.end_headers()
        if self.method != "HEAD":
            self._handler.wfile.write(data)
        return True

    def fail(self, status: int, code: str, headers: dict[str, str] | None = None) -> bool:
        self.body()
        return self.say(status, json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode(),
                        {"Content-Type": "application/json", **(headers or {})})

    def write(self, data: bytes) -> None:
        self._handler.wfile.write(data)

    def hang_up(self) -> bool:
        with contextlib.suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_RDWR)
        self._handler.close_connection = True
        return True
