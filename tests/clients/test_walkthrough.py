"""The main job on real input: a Debian image from a real registry, run by the real docker client, as Docker's own guide says."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.support.private import PrivateHelper, docker_client
from tests.support.registry import registry
from tests.support.roots import debian_tar
from tests.support.terminal import Terminal

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo, which fills the registry, is not installed"),
]


@pytest.fixture(scope="module")
def debian_in_registry() -> Iterator[str]:
    """The image name of a Debian that lies in a registry on loopback."""
    try:
        tar = debian_tar()
    except LookupError as why:
        pytest.skip(str(why))
    with registry() as at, PrivateHelper() as helper:
        helper.docker("import", "--change", 'CMD ["bash"]', str(tar), "debian-made-here:1", timeout=300)
        helper.docker("save", "-o", f"{helper.at}/debian.tar", "debian-made-here:1", timeout=300)
        subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", f"docker-archive:{helper.at}/debian.tar",
                        f"docker://{at}/team/debian:12"], check=True, timeout=300)
        yield f"{at}/team/debian:12"


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        yield made


def test_the_walk_through_of_dockers_guide_works_word_for_word(helper: PrivateHelper, debian_in_registry: str) -> None:
    client = docker_client()
    assert client is not None
    assert helper.docker("images", "-q").stdout == b"", "the image must be missing, so that run pulls it"
    env = {**os.environ, "DOCKER_CONFIG": f"{helper.at}/docker", "TERM": "xterm"}
    guide = Terminal([client, "-H", f"unix://{helper.socket}", "run", "-i", "-t", "--name", "guide", debian_in_registry, "/bin/bash"], env)
    guide.expect(r"Unable to find image")
    guide.expect(r"Status: Downloaded newer image", 120)
    guide.expect(r"root@[0-9a-f]{12}:/# ")
    guide.type("tty; stty size; cat /etc/debian_version; echo kept > /kept; hostname -I 2>/dev/null || cat /proc/net/fib_trie | grep -o '10\\.[0-9.]*' | head -1\n")
    guide.expect(r"/dev/pts/0")
    guide.expect(r"30 100")
    guide.expect(r"12\.\d+")
    guide.expect(r"10\.\d+\.\d+\.\d+")
    guide.type("exit\n")
    assert guide.end() == 0
    state = helper.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "guide").stdout.decode().split()
    assert state == ["exited", "0"], "exit stops the container without removing it"
    helper.docker("start", "guide")
    assert helper.docker("exec", "guide", "cat", "/kept").stdout == b"kept\n", "its writable layer is there again"
    helper.docker("rm", "-f", "guide")
    assert helper.docker("ps", "-aq").stdout == b""


def test_programs_of_a_real_distribution_run(helper: PrivateHelper, debian_in_registry: str) -> None:
    assert re.match(rb"apt \d+\.\d+", helper.docker("run", "--rm", debian_in_registry, "apt-get", "--version", timeout=180).stdout)
    out = helper.docker("run", "--rm", debian_in_registry, "perl", "-e", "print 6*7").stdout
    assert out == b"42"


def test_a_container_reaches_a_server_on_the_host_through_the_default_network(helper: PrivateHelper, debian_in_registry: str) -> None:
    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"hello {self.client_address[0]}".encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        gateway = helper.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge").stdout.decode().strip()
        program = (f"use IO::Socket::INET; my $s = IO::Socket::INET->new(PeerAddr=>'{gateway}', PeerPort=>{server.server_port}) or die $!;"
                   'print $s "GET / HTTP/1.0\\r\\n\\r\\n"; local $/; print <$s>;')
        answer = helper.docker("run", "--rm", debian_in_registry, "perl", "-e", program, timeout=180).stdout.decode()
        assert re.search(r"hello 10\.\d+\.\d+\.\d+", answer), answer
    finally:
        server.shutdown()
        server.server_close()
