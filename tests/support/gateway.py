"""A door to a registry that counts what goes through, and can be shut, broken or made to lie."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import re
import threading
from collections.abc import Iterator


class Gateway:
    """*sent*: bytes of answers so far. Blobs pass while ``open`` is set; ``down``: nobody answers; ``lies``: a byte of
    each part of a blob is another; ``no_parts``: ranges are not known."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.sent = 0
        self.open = threading.Event()
        self.open.set()
        self.down = self.lies = self.no_parts = False
        #: Set when a blob is asked for while the door is shut.
        self.waiting = threading.Event()
        gateway = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    gateway.pass_on(self)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    def pass_on(self, request: http.server.BaseHTTPRequestHandler) -> None:
        blob = re.search("/blobs/sha256", request.path) is not None
        if blob and not self.open.is_set():
            self.waiting.set()
            self.open.wait(60)
        if self.down:
            request.close_connection = True
            return
        upstream = http.client.HTTPConnection(self.upstream)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in ("connection", "host")}
        if self.no_parts:
            headers = {key: value for key, value in headers.items() if key.lower() != "range"}
        upstream.request(request.command, request.path, headers=headers)
        answer = upstream.getresponse()
        request.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("connection", "transfer-encoding"):
                request.send_header(key, value)
        request.end_headers()
        first = True
        while request.command != "HEAD" and (piece := answer.read(1 << 16)):
            if first and self.lies and answer.status == 206:
                piece = piece[:20] + bytes([piece[20] ^ 1]) + piece[21:]
            first = False
            self.sent += len(piece)
            request.wfile.write(piece)
        upstream.close()


@contextlib.contextmanager
def gateway(upstream: str) -> Iterator[Gateway]:
    made = Gateway(upstream)
    threading.Thread(target=made._server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        made.open.set()
        made._server.shutdown()
        made._server.server_close()
