"""A volume plug-in of Docker's protocol, as somebody else might write it: a program of its own, standard library only.

``python -m tests.support.volume_plugin SOCKET FOLDER [FAULT]``: volumes are directories below FOLDER. Every call is
noted in FOLDER/calls, one line each. What FOLDER/fault says happens in the next calls: ``METHOD hang``, ``METHOD die``,
``METHOD nonsense``, ``METHOD error``, ``METHOD elsewhere``.
"""

from __future__ import annotations

import json
import os
import shutil
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from typing import Any


class Volumes:
    """What the plug-in knows: options by name, and who has which mounted; kept in a file, so that it may be restarted."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.state = os.path.join(folder, "state.json")
        self.known: dict[str, dict[str, Any]] = {}
        if os.path.exists(self.state):
            with open(self.state) as source:
                self.known = json.load(source)

    def save(self) -> None:
        with open(f"{self.state}.new", "w") as sink:      # whole or not at all: the tests read it at any time
            json.dump(self.known, sink)
        os.rename(f"{self.state}.new", self.state)

    def place(self, name: str) -> str:
        return os.path.join(self.folder, "volumes", name)

    def describe(self, name: str) -> dict[str, Any]:
        return {"Name": name, "Mountpoint": self.place(name), "CreatedAt": "2024-01-02T03:04:05Z", "Status": {"mounts": len(self.known[name]["mounts"])}}

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        name = body.get("Name", "")
        if method == "Plugin.Activate":
            return {"Implements": ["VolumeDriver"]}
        if method == "VolumeDriver.Capabilities":
            return {"Capabilities": {"Scope": "global"}}
        if method == "VolumeDriver.List":
            return {"Volumes": [self.describe(one) for one in self.known]}
        if method == "VolumeDriver.Create":
            if body.get("Opts", {}).get("refuse"):
                return {"Err": "these options are refused"}
            os.makedirs(self.place(name), exist_ok=True)
            self.known.setdefault(name, {"options": body.get("Opts") or {}, "mounts": []})
            self.save()
            return {}
        if name not in self.known:
            return {"Err": f"there is no volume {name}"}
        return self.on_one(method, name, body)

    def on_one(self, method: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        one = self.known[name]
        if method == "VolumeDriver.Get":
            return {"Volume": self.describe(name)}
        if method == "VolumeDriver.Path":
            return {"Mountpoint": self.place(name)}
        if method == "VolumeDriver.Mount":
            one["mounts"].append(body["ID"])
            self.save()
            return {"Mountpoint": self.place(name)}
        if method == "VolumeDriver.Unmount":
            if body["ID"] not in one["mounts"]:
                return {"Err": "it is not mounted for this container"}
            one["mounts"].remove(body["ID"])
            self.save()
            return {}
        if method == "VolumeDriver.Remove":
            if one["mounts"]:
                return {"Err": "it is mounted"}
            shutil.rmtree(self.place(name))
            del self.known[name]
            self.save()
            return {}
        return {"Err": f"{method} is unknown here"}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    volumes: Volumes

    def do_POST(self) -> None:
        method = self.path.lstrip("/")
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        with open(os.path.join(self.volumes.folder, "calls"), "a") as sink:
            sink.write(json.dumps([method, body]) + "\n")
        answer: dict[str, Any] | None = None
        fault = self.fault(method)
        if fault == "hang":
            time.sleep(3600)
        elif fault == "die":
            os._exit(3)
        elif fault == "elsewhere":
            answer = {"Mountpoint": "/no/such/place"}
        elif fault == "error":
            answer = {"Err": "as the test wished"}
        data = b"<html>nonsense" if fault == "nonsense" else json.dumps(answer if answer is not None else self.volumes.answer(method, body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.docker.plugins.v1.2+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def fault(self, method: str) -> str:
        path = os.path.join(self.volumes.folder, "fault")
        if not os.path.exists(path):
            return ""
        with open(path) as source:
            wanted, _, what = source.read().strip().partition(" ")
        return what if wanted == method else ""

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def main() -> None:
    path, folder = sys.argv[1], sys.argv[2]
    Handler.volumes = Volumes(folder)
    if os.path.exists(path):
        os.unlink(path)
    server = Server(path, Handler)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
