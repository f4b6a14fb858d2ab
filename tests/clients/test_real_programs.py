"""redis, nginx and PostgreSQL as people run them: with volumes and limits, stopped, killed, replaced; their data intact,
and talking to each other by name (``dig`` is the witness)."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.private import PrivateHelper, docker_client
from tests.support.roots import servers_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    try:
        tar = servers_tar()
    except LookupError as why:
        pytest.skip(str(why))
    with PrivateHelper() as made:
        path = "PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        made.docker("import", "-c", f"ENV {path}", str(tar), "servers:1", timeout=300)
        made.docker("network", "create", "backend")
        yield made


class Box:
    """A container by its name."""

    def __init__(self, helper: PrivateHelper, name: str, *flags: str, network: str = "backend") -> None:
        self.helper, self.name = helper, name
        helper.docker("run", "-d", "--name", name, "--network", network, *flags)

    def sh(self, script: str, *flags: str, check: bool = True) -> str:
        done = self.helper.docker("exec", *flags, self.name, "sh", "-c", script, check=check, timeout=120)
        return (done.stdout + done.stderr).decode().strip()

    def inspect(self, template: str) -> str:
        return self.helper.docker("inspect", "-f", template, self.name).stdout.decode().strip()

    def port(self, inside: str) -> tuple[str, int]:
        address, _, number = self.helper.docker("port", self.name, inside).stdout.decode().split()[0].rpartition(":")
        return address, int(number)

    def __getattr__(self, verb: str) -> Callable[..., None]:
        """stop, start, restart, kill, rm ..."""
        return lambda *flags: self.helper.docker(verb, *flags, self.name, timeout=120)


def until(done: Callable[[], bool], box: Box, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, box.helper.docker("logs", "--tail", "30", box.name, check=False)
        time.sleep(0.05)


def test_redis_keeps_its_data_through_stop_kill_and_a_new_container(helper: PrivateHelper) -> None:
    flags = ("-v", "redis-data:/var/lib/redis", "-u", "redis", "-m", "128m", "--cpus", "1", "--pids-limit", "50", "--read-only", "--tmpfs", "/tmp",
             "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "-p", "127.0.0.1::6379", "servers:1",
             "redis-server", "--dir", "/var/lib/redis", "--appendonly", "yes", "--appendfsync", "always", "--bind", "0.0.0.0", "--protected-mode", "no")
    box = Box(helper, "redis", *flags)

    def say(text: str) -> str:
        return box.sh(f"redis-cli {text}", check=False)

    until(lambda: say("ping") == "PONG", box)
    with socket.create_connection(box.port("6379"), 10) as wire:
        wire.sendall(b"PING\r\n")
        assert wire.recv(100) == b"+PONG\r\n", "the published port leads to it"
    assert say("set greeting hello") == "OK"
    assert box.sh("for i in $(seq 1 200); do echo set key:$i value:$i; done | redis-cli | sort | uniq -c").split() == ["200", "OK"]
    box.stop()
    assert box.inspect("{{.State.ExitCode}}") == "0", "it ends in order on SIGTERM"
    box.start()
    until(lambda: say("ping") == "PONG", box)
    assert (say("get greeting"), say("dbsize")) == ("hello", "201")
    box.kill()
    box.start()
    until(lambda: say("ping") == "PONG", box)
    assert (say("get key:200"), say("dbsize")) == ("value:200", "201")
    box.rm("-f")
    again = Box(helper, "redis", *flags)
    until(lambda: say("ping") == "PONG", again)
    assert say("dbsize") == "201", "a new container finds what the volume holds"
    limit = again.sh("cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null", check=False)
    assert limit == str(128 << 20)
    again.rm("-f")


def test_nginx_serves_a_folder_reloads_and_ends_gracefully(helper: PrivateHelper, tmp_path: Path) -> None:
    big = os.urandom(20 << 20)
    (tmp_path / "big").write_bytes(big)
    (tmp_path / "index.html").write_text("first page")
    tmp_path.chmod(0o755)
    box = Box(helper, "nginx", "-v", f"{tmp_path}:/var/www/html:ro", "-m", "128m", "--stop-signal", "SIGQUIT", "-p", "127.0.0.1::80", "--init", "servers:1",
              "nginx", "-g", "daemon off;")
    base = "http://{}:{}".format(*box.port("80"))

    def fetch(path: str = "/") -> bytes:
        with urllib.request.urlopen(base + path, timeout=20) as reply:
            return bytes(reply.read())

    def answers() -> bool:
        try:
            return fetch() == b"first page"
        except OSError:
            return False

    until(answers, box)
    assert "www-data" in helper.docker("top", "nginx", "-eo", "pid,user,args").stdout.decode(), "its workers gave up root"
    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(lambda _: hashlib.sha256(fetch("/big")).digest(), range(20))) == {hashlib.sha256(big).digest()}
    (tmp_path / "index.html").write_text("second page")
    box.sh("nginx -s reload")
    assert fetch() == b"second page"
    assert "touch" in box.sh("touch /var/www/html/x", check=False), "the bind is read-only"
    box.stop("-t", "20")
    assert box.inspect("{{.State.ExitCode}}") == "0"
    box.start()
    base = "http://{}:{}".format(*box.port("80"))
    until(lambda: "second page" in box.sh("exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3", check=False)
          or fetch() == b"second page", box)
    box.rm("-f")


def test_postgres_keeps_every_transaction_through_stop_and_kill(helper: PrivateHelper) -> None:
    helper.docker("run", "--rm", "-v", "pg-data:/data", "servers:1", "chown", "postgres:postgres", "/data")
    helper.docker("run", "--rm", "-u", "postgres", "-v", "pg-data:/data", "servers:1", "initdb", "-D", "/data/db", "-A", "trust", "-N", timeout=120)
    helper.docker("run", "--rm", "-u", "postgres", "-v", "pg-data:/data", "servers:1", "sh", "-c", "echo host all all all trust >> /data/db/pg_hba.conf")
    box = Box(helper, "postgres", "-u", "postgres", "-v", "pg-data:/data", "--shm-size", "64m", "-m", "300m", "--stop-signal", "SIGINT", "--stop-timeout", "60",
              "servers:1", "postgres", "-D", "/data/db", "-k", "/tmp", "-h", "0.0.0.0", "-c", "shared_buffers=32MB")

    def ask(query: str) -> str:
        return box.sh(f'psql -h /tmp -At -c "{query}"', check=False)

    def whole() -> bool:
        """pgbench's own invariant: what tellers, branches and accounts hold is what was booked."""
        sums = [ask(f"select coalesce(sum({column}), 0) from {table}") for table, column in (
            ("pgbench_accounts", "abalance"), ("pgbench_tellers", "tbalance"), ("pgbench_branches", "bbalance"), ("pgbench_history", "delta"))]
        assert all(re.fullmatch(r"-?\d+", one) for one in sums), sums
        return len(set(sums)) == 1

    until(lambda: ask("select 1") == "1", box)
    box.sh("pgbench -h /tmp -i -q postgres && pgbench -h /tmp -n -c 4 -t 50 postgres")
    assert ask("select count(*) from pgbench_history") == "200" and whole()
    there = helper.docker("run", "--rm", "--network", "backend", "servers:1", "psql", "-h", "postgres", "-U", "postgres", "-At", "-c", "select count(*) from pgbench_history")
    assert there.stdout == b"200\n", "another container reaches it by its name"
    box.stop()
    assert box.inspect("{{.State.ExitCode}}") == "0"
    assert b"database system is shut down" in helper.docker("logs", "--tail", "5", "postgres").stderr
    box.start()
    until(lambda: ask("select 1") == "1", box)
    assert ask("select count(*) from pgbench_history") == "200"
    box.sh("pgbench -h /tmp -n -c 4 -T 60 postgres > /dev/null 2>&1", "-d")
    until(lambda: int(ask("select count(*) from pgbench_history")) > 260, box)
    seen = int(ask("select count(*) from pgbench_history"))
    box.kill()
    box.start()
    until(lambda: ask("select 1") == "1", box)
    assert b"was not properly shut down; automatic recovery in progress" in helper.docker("logs", "postgres").stderr
    assert int(ask("select count(*) from pgbench_history")) >= seen and whole(), "no transaction that was seen is gone"
    box.rm("-f")
    helper.docker("volume", "rm", "pg-data")


# --- by name --------------------------------------------------------------------------------------------------------
RESOLVER = r'''
use Socket; socket(S, PF_INET, SOCK_DGRAM, 0) and bind(S, sockaddr_in(53, INADDR_ANY)) or die $!;
while (my $client = recv(S, my $query, 512, 0)) {      # knows www.example.org, and no other name
    my $end = index($query, "\0", 12) + 5; my $question = substr($query, 12, $end - 12);
    my $known = $question =~ /^\x03www\x07example\x03org\x00/;
    send(S, substr($query, 0, 2) . pack("n5", $known ? 0x8180 : 0x8183, 1, $known, 0, 0) . $question
         . ($known ? pack("nnnNnC4", 0xc00c, 1, 1, 60, 4, 192, 0, 2, 80) : ""), 0, $client);
}'''
FRONT = "events {} http { access_log off; server { listen 80; location / { proxy_pass http://web; } } }"
DATABASE = "initdb -D /tmp/db -A trust -N >/dev/null && echo host all all all trust >>/tmp/db/pg_hba.conf && exec postgres -D /tmp/db -k /tmp -h 0.0.0.0"


class Asker(Box):
    """A container that looks names up."""

    def dig(self, words: str) -> list[str]:
        return self.sh(f"dig +time=5 +tries=1 +short {words}").split()

    def status(self, name: str) -> str:
        found = re.search(r"status: (\w+)", self.sh(f"dig +time=5 +tries=1 {name}"))
        assert found is not None
        return found[1]


@pytest.fixture(scope="module")
def shop(helper: PrivateHelper) -> Iterator[dict[str, Box]]:
    """redis three times under one alias, PostgreSQL, nginx before nginx, a DNS server, on one network; one container on another."""
    helper.docker("network", "create", "--ipv6", "shop")
    helper.docker("network", "create", "elsewhere")
    redis = ("--network-alias", "cache", "servers:1", "redis-server", "--bind", "0.0.0.0", "--protected-mode", "no")
    made: dict[str, Box] = {name: Box(helper, name, *redis, network="shop") for name in ("redis1", "redis2", "redis3")}
    made["resolver"] = Box(helper, "resolver", "servers:1", "perl", "-e", RESOLVER, network="shop")
    made["db"] = Box(helper, "db", "-u", "postgres", "servers:1", "sh", "-c", DATABASE, network="shop")
    made["web"] = Box(helper, "web", "--network-alias", "pages", "servers:1", "nginx", "-g", "daemon off;", network="shop")
    made["hidden"] = Box(helper, "hidden", "servers:1", "sleep", "1000", network="elsewhere")
    made["front"] = Asker(helper, "front", "--dns", address(made["resolver"]), "--dns-search", "example.org", "--dns-opt", "ndots:1", "--add-host", "host.docker.internal:host-gateway",
                          "servers:1", "sh", "-c", f"echo '{FRONT}' >/tmp/nginx.conf && exec nginx -c /tmp/nginx.conf -g 'daemon off;'", network="shop")
    yield made
    helper.docker("rm", "-f", *made)
    helper.docker("network", "rm", "shop", "elsewhere")


def address(box: Box, field: str = "IPAddress") -> str:
    return box.inspect(f"{{{{range .NetworkSettings.Networks}}}}{{{{.{field}}}}}{{{{end}}}}")


def asker(shop: dict[str, Box]) -> Asker:
    front = shop["front"]
    assert isinstance(front, Asker)
    return front


def test_servers_talk_to_each_other_by_name(shop: dict[str, Box]) -> None:
    front, web = asker(shop), shop["web"]
    web.sh("echo by name >/var/www/html/index.html")
    until(lambda: front.sh("redis-cli -h redis1 ping; redis-cli -h cache ping", check=False).split() == ["PONG", "PONG"], front)
    until(lambda: front.sh("psql -h db -U postgres -At -c 'select 6 * 7'", check=False) == "42", front)
    page = r"exec 3<>/dev/tcp/front/80; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3"
    until(lambda: "by name" in web.sh(f'bash -c "{page}"', check=False), front)


def test_dig_finds_every_name_of_the_network(shop: dict[str, Box]) -> None:
    front, web = asker(shop), shop["web"]
    four, six = address(web), address(web, "GlobalIPv6Address")
    short = web.inspect("{{.ID}}")[:12]
    for name in ("web", "WEB", "web.", "pages", "web.shop", short):
        assert (front.dig(name), front.dig(f"+tcp {name}"), front.dig(f"{name} AAAA")) == ([four], [four], [six]), name
    assert (front.dig(f"-x {four}"), front.dig(f"-x {six}")) == (["web.shop."], ["web.shop."])
    assert front.status("web MX") == "NOERROR" and front.dig("web MX") == []


def test_dig_sees_the_addresses_of_an_alias_take_turns(shop: dict[str, Box]) -> None:
    front = asker(shop)
    answers = [front.dig("cache") for _ in range(6)]
    assert all(sorted(one) == sorted(address(shop[name]) for name in ("redis1", "redis2", "redis3")) for one in answers)
    assert len({one[0] for one in answers}) == 3


def test_names_of_another_network_do_not_exist(shop: dict[str, Box]) -> None:
    front, hidden = asker(shop), shop["hidden"]
    assert front.status("hidden") == "NXDOMAIN"
    assert front.status(f"-x {address(hidden)}") == "NXDOMAIN"
    assert "web" not in hidden.sh("getent hosts web", check=False)


def test_a_dns_server_in_a_container_is_asked_for_the_other_names(shop: dict[str, Box]) -> None:
    front = asker(shop)
    assert front.dig("www.example.org") == ["192.0.2.80"]
    assert front.dig("+search www") == ["192.0.2.80"], "the search domain is added"
    assert front.sh("getent hosts www").split()[0] == "192.0.2.80", "libc does the same"
    assert front.status("www.example.com") == "NXDOMAIN"


def test_host_docker_internal_leads_to_the_host(shop: dict[str, Box]) -> None:
    front = asker(shop)
    assert front.dig("host.docker.internal") == [address(front, "Gateway")]
    with socket.create_server(("0.0.0.0", 0)) as listening:
        port = listening.getsockname()[1]
        front.sh(f"bash -c 'echo hello >/dev/tcp/host.docker.internal/{port}'")
        with listening.accept()[0] as wire:
            assert wire.recv(100) == b"hello\n"
