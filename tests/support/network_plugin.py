"""A network and address plug-in of Docker's protocol: a program of its own, standard library and ``ip`` only.

``python -m tests.support.network_plugin SOCKET FOLDER``: each network is a bridge, each endpoint a veth
pair, all with names that begin with :func:`prefix`. Every call is noted in FOLDER/calls; FOLDER/fault says ``METHOD error|nonsense|hang`` or ``Join nodevice``.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socketserver
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from typing import Any


def ip(*words: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def prefix(pid: int) -> str:
    """How the devices of the plug-in process *pid* are called."""
    return f"t{pid % 0x10000:04x}"


class Networks:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.prefix = prefix(os.getpid())
        self.gateways: dict[str, str] = {}
        self.pools: dict[str, list[str]] = {}
        self.ports: dict[str, list[dict[str, Any]]] = {}

    def fault(self, method: str) -> str:
        path = os.path.join(self.folder, "fault")
        wanted, _, what = open(path).read().strip().partition(" ") if os.path.exists(path) else ("", "", "")
        return what if wanted and method.endswith(wanted) else ""

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        made = getattr(self, "on_" + method.replace(".", "_"), None)
        return made(body) if made else {"Err": f"{method} is unknown here"}

    def on_Plugin_Activate(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"Implements": ["NetworkDriver", "IpamDriver"]}

    # -- networks ----------------------------------------------------------------------------------------------------
    def on_NetworkDriver_GetCapabilities(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"Scope": "local", "ConnectivityScope": "local"}

    def bridge(self, body: dict[str, Any]) -> str:
        return f"{self.prefix}b{body['NetworkID'][:8]}"

    def on_NetworkDriver_CreateNetwork(self, body: dict[str, Any]) -> dict[str, Any]:
        ip("link", "add", self.bridge(body), "type", "bridge")
        if body["IPv4Data"]:
            gateway = body["IPv4Data"][0]["Gateway"]
            self.gateways[body["NetworkID"]] = gateway.partition("/")[0]
            ip("addr", "add", gateway, "dev", self.bridge(body))
        ip("link", "set", self.bridge(body), "up")
        return {}

    def on_NetworkDriver_DeleteNetwork(self, body: dict[str, Any]) -> dict[str, Any]:
        ip("link", "del", self.bridge(body))
        return {}

    def on_NetworkDriver_CreateEndpoint(self, body: dict[str, Any]) -> dict[str, Any]:
        mac = "02:aa:" + ":".join(body["EndpointID"][at:at + 2] for at in range(0, 8, 2))
        return {"Interface": {"MacAddress": mac}} if not body["Interface"]["MacAddress"] else {}

    def on_NetworkDriver_Join(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.fault("Join") == "nodevice":
            return {"InterfaceName": {"SrcName": "nosuchdev", "DstPrefix": "net"}}
        host, inner = (f"{self.prefix}{end}{body['EndpointID'][:8]}" for end in "hc")
        ip("link", "add", host, "type", "veth", "peer", "name", inner)
        ip("link", "set", host, "master", self.bridge(body), "up")
        return {"InterfaceName": {"SrcName": inner, "DstPrefix": "net"}, "Gateway": self.gateways.get(body["NetworkID"], ""),
                "StaticRoutes": [{"Destination": "198.51.100.0/24", "RouteType": 1}]}

    def on_NetworkDriver_Leave(self, body: dict[str, Any]) -> dict[str, Any]:
        ip("link", "del", f"{self.prefix}h{body['EndpointID'][:8]}", check=False)
        return {}

    def on_NetworkDriver_ProgramExternalConnectivity(self, body: dict[str, Any]) -> dict[str, Any]:
        """Publishes nothing really; a port that was left open is 4000 and the container's."""
        if self.fault("ProgramExternalConnectivity") != "silent":
            self.ports[body["EndpointID"]] = [one | {"HostPort": one["HostPort"] or 4000 + one["Port"]} for one in body["Options"]["com.docker.network.portmap"]]
        return {}

    def on_NetworkDriver_EndpointOperInfo(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.fault("EndpointOperInfo") == "wrong":
            return {"Value": {"com.docker.network.portmap": [{"Proto": 99, "Port": 80, "HostPort": 70000}]}}
        ports = self.ports.get(body["EndpointID"])
        return {"Value": {"com.docker.network.portmap": ports} if ports else {}}

    def on_NetworkDriver_DeleteEndpoint(self, _: dict[str, Any]) -> dict[str, Any]:
        return {}

    # -- addresses ---------------------------------------------------------------------------------------------------
    def on_IpamDriver_GetCapabilities(self, _: dict[str, Any]) -> dict[str, Any]:
        return {}

    def on_IpamDriver_GetDefaultAddressSpaces(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "there"}

    def on_IpamDriver_RequestPool(self, body: dict[str, Any]) -> dict[str, Any]:
        pool = body["Pool"] or "10.222.7.0/24"
        self.pools[f"id-{pool}"] = []
        return {"PoolID": f"id-{pool}", "Pool": pool}

    def on_IpamDriver_ReleasePool(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.pools[body["PoolID"]]:
            return {"Err": f"addresses are left: {self.pools[body['PoolID']]}"}
        del self.pools[body["PoolID"]]
        return {}

    def on_IpamDriver_RequestAddress(self, body: dict[str, Any]) -> dict[str, Any]:
        subnet = ipaddress.ip_network(body["PoolID"].removeprefix("id-"))
        given = self.pools[body["PoolID"]]
        wanted = body["Address"] or next(str(one) for one in reversed(list(subnet.hosts())) if str(one) not in given)   # from the top
        if wanted in given:
            return {"Err": f"{wanted} is given already"}
        given.append(wanted)
        return {"Address": f"{wanted}/{subnet.prefixlen}"}

    def on_IpamDriver_ReleaseAddress(self, body: dict[str, Any]) -> dict[str, Any]:
        self.pools[body["PoolID"]].remove(body["Address"])
        return {}


class Handler(BaseHTTPRequestHandler):
    networks: Networks

    def do_POST(self) -> None:
        method = self.path.lstrip("/")
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        with open(os.path.join(self.networks.folder, "calls"), "a") as sink:
            sink.write(json.dumps([method, body]) + "\n")
        fault = self.networks.fault(method)
        if fault == "hang":
            time.sleep(3600)
        try:
            answer = {"Err": "as the test wished"} if fault == "error" else self.networks.answer(method, body)
        except (RuntimeError, ValueError, KeyError) as problem:
            answer = {"Err": f"{type(problem).__name__}: {problem}"}
        data = b"<html>" if fault == "nonsense" else json.dumps(answer).encode()
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
    Handler.networks = Networks(sys.argv[2])
    server = Server(sys.argv[1], Handler)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
