"""An authorisation plug-in of Docker's protocol: a program of its own, standard library only.

``python -m tests.support.authz_plugin SOCKET FOLDER``: notes each question in FOLDER/calls and refuses what the
expression in FOLDER/deny finds in "METHOD URI BODY" of a request, or in "STATUS BODY" of an answer (FOLDER/deny-answer).
FOLDER/fault: ``hang``, ``nonsense`` or ``error`` for all that is asked.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from typing import Any


class Handler(BaseHTTPRequestHandler):
    folder = ""

    def read(self, name: str) -> str:
        path = os.path.join(self.folder, name)
        return open(path).read().strip() if os.path.exists(path) else ""

    def verdict(self, method: str, asked: dict[str, Any]) -> dict[str, Any]:
        if method == "Plugin.Activate":
            return {"Implements": ["authz"]}
        request = base64.b64decode(asked.get("RequestBody") or "").decode()
        answer = base64.b64decode(asked.get("ResponseBody") or "").decode()
        with open(os.path.join(self.folder, "calls"), "a") as sink:
            sink.write(json.dumps([method, asked, request]) + "\n")
        if self.read("fault") == "hang":
            time.sleep(3600)
        if self.read("fault") == "error":
            return {"Err": "as the test wished"}
        if method == "AuthZPlugin.AuthZReq":
            wanted, text = self.read("deny"), f"{asked['RequestMethod']} {asked['RequestUri']} {request}"
        else:
            wanted, text = self.read("deny-answer"), f"{asked['ResponseStatusCode']} {answer}"
        if wanted and re.search(wanted, text):
            return {"Allow": False, "Msg": "the test's rule"}
        return {"Allow": True}

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        data = json.dumps(self.verdict(self.path.lstrip("/"), asked)).encode()
        if self.read("fault") == "nonsense" and self.path != "/Plugin.Activate":
            data = b"[1, 2"
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def main() -> None:
    Handler.folder = sys.argv[2]
    server = Server(sys.argv[1], Handler)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
