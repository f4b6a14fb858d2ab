"""Our reading of Compose files beside docker compose's own, file by file. No engine is needed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from backend.compose.load import load_project
from backend.compose.theirs import their_hash
from tests.support.compose import environment, has_compose
from tests.support.private import docker_client

pytestmark = pytest.mark.skipif(not has_compose(), reason="docker compose is not installed beside the docker client")


def compose(home: Path, *words: str) -> str:
    done = subprocess.run([docker_client() or "docker", "compose", *words], cwd=home, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


SERVICES = {
    "plain": "image: a",
    "commands": "{image: a, command: 'sh -c \"echo $$HOME ${A} x\\ y\"', entrypoint: [a, b]}",
    "cleared": "{image: a, command: [], entrypoint: ''}",
    "environment": "{image: a, environment: {I: 0777, F: 1e3, H: 0x10, D: 1.50, B: true, N: , E: '', A: , U: ü, Q: 'a&b<c>'}}",
    "environment list": "{image: a, environment: [X=1, A, UNSET, 'Y=a=b']}",
    "ports": "{image: a, ports: [80, '81:81', '127.0.0.1:9000-9001:90-91/udp', '[::1]:90:90', '8000-8010:70']}",
    "long ports": "{image: a, ports: [{target: 80, published: 81, mode: host, name: x, app_protocol: http}, {target: 1}]}",
    "volumes": "{image: a, volumes: ['data:/d:ro', './x:/x', '/anon', '~/q:/q', '/abs:/abs:ro,rshared']}",
    "long volumes": "{image: a, volumes: [{type: volume, source: data, target: /c}, {type: bind, source: ., target: /e, bind: "
                    "{propagation: rshared}}, {type: tmpfs, target: /q, tmpfs: {size: 10m, mode: 0755}}, {type: tmpfs, target: /r}]}",
    "paths": "{image: a, volumes: [{type: bind, source: ./x/, target: /c/}, './q/../r/:/e//f/', '/x/../y/:/g', '/i/', '~/j/:/j']}",
    "networks": "{image: a, networks: [front, default]}",
    "long networks": "{image: a, networks: {front: {}, default: {aliases: [x], ipv4_address: 1.2.3.4, priority: 3}}}",
    "depends": "{image: a, depends_on: {other: {condition: service_healthy, restart: true}}}",
    "limits": "{image: a, mem_limit: 1.5g, cpus: 0.3, pids_limit: 100, shm_size: 100, cpu_shares: 10, cpuset: 0-1, "
              "memswap_limit: 2g, mem_reservation: 10m, oom_score_adj: -3, ulimits: {nofile: 10, nproc: {soft: 1, hard: 2}, core: 0}}",
    "deploy": "{image: a, deploy: {replicas: 2, restart_policy: {condition: on-failure, max_attempts: 3}, "
              "resources: {limits: {cpus: '0.25', memory: 64M, pids: 3}, reservations: {memory: 3m}}}}",
    "health": "{image: a, healthcheck: {test: [CMD, x], interval: 1.5s, timeout: 500ms, retries: 3, start_period: 1h}}",
    "health text": "{image: a, healthcheck: {test: 'true'}}",
    "no health": "{image: a, healthcheck: {disable: true}}",
    "identity": "{image: a, user: '1000:1000', hostname: h, domainname: d, working_dir: /w, container_name: xx, "
                "mac_address: '02:42:ac:11:00:02', platform: linux/amd64, pull_policy: always, runtime: r}",
    "rights": "{image: a, cap_add: [A], cap_drop: [ALL], security_opt: ['no-new-privileges:true'], privileged: true, "
              "read_only: true, group_add: ['1', g], devices: ['/dev/null:/dev/x:r', /dev/zero], userns_mode: host}",
    "lists": "{image: a, dns: 1.1.1.1, dns_search: [a], dns_opt: [b], tmpfs: [/a, '/b:size=3m'], expose: [80, '90/udp'], "
             "extra_hosts: {h: 1.1.1.1, i: [1.1.1.2, '::1']}, sysctls: {net.core.somaxconn: 1024}}",
    "life": "{image: a, restart: unless-stopped, init: true, stop_signal: SIGINT, stop_grace_period: 90s, tty: true, "
            "stdin_open: true, attach: false, logging: {driver: json-file, options: {max-size: 10m}}}",
    "modes": "{image: a, network_mode: host, ipc: host, pid: host, uts: host, cgroup: private, cgroup_parent: x}",
    "labels": "{image: a, labels: [a=b, c, 'd=e=f'], annotations: {x: y}}",
}
TAIL = "\nvolumes: {data: }\nnetworks: {front: }\n"


@pytest.mark.parametrize("body", SERVICES.values(), ids=SERVICES.keys())
def test_docker_compose_gives_a_service_the_hash_that_we_give_it(body: str, tmp_path: Path) -> None:
    home = tmp_path / "shop"
    home.mkdir()
    body = body if body.startswith("{") else f"{{{body}}}"
    (home / "compose.yaml").write_text(f"services:\n  web: {body}\n  other: {{image: b}}\n{TAIL}")
    (home / ".env").write_text("A=from env\n")
    theirs = dict(line.split() for line in compose(home, "config", "--hash", "*").splitlines())
    project = load_project([str(home / "compose.yaml")], env=environment())
    assert {s.name: their_hash(s) for s in project.services} == theirs


OVERRIDES = {
    "environment": ("environment: {A: 1, B: 2}", "environment: [B=3, C=4]"),
    "commands": ("command: a b", "command: [c]"),
    "ports": ("ports: ['80:80', '81:81']", "ports: ['80:80', '82:82']"),
    "volumes": ("volumes: ['data:/a', './x:/b']", "volumes: ['./y:/a:ro']"),
    "lists": ("cap_add: [A, B], dns: 1.1.1.1", "cap_add: [B, C], dns: [2.2.2.2]"),
    "networks": ("networks: [front]", "networks: {default: {aliases: [x]}}"),
    "health": ("healthcheck: {test: [CMD, a], interval: 5s}", "healthcheck: {test: [CMD, b]}"),
    "logging": ("logging: {driver: a, options: {x: '1'}}", "logging: {driver: b, options: {y: '2'}}"),
    "reset": ("ports: ['80:80'], user: u", "ports: !reset [], user: !reset null"),
    "override": ("ports: ['80:80']", "ports: !override ['81:81']"),
    "null": ("user: u, hostname: h", "hostname: g"),
    "tmpfs": ("tmpfs: /a", "tmpfs: [/b]"),
    "ulimits": ("ulimits: {a: 1, b: 2}", "ulimits: {b: {soft: 3, hard: 4}}"),
    "extra hosts": ("extra_hosts: ['a:1.1.1.1']", "extra_hosts: ['b:1.1.1.2']"),
    "deploy": ("deploy: {resources: {limits: {cpus: '1'}}}", "deploy: {resources: {limits: {memory: 1g}}}"),
}


@pytest.mark.parametrize(("base", "over"), OVERRIDES.values(), ids=OVERRIDES.keys())
def test_two_files_become_the_service_that_docker_compose_makes_of_them(base: str, over: str, tmp_path: Path) -> None:
    home = tmp_path / "shop"
    home.mkdir()
    (home / "compose.yaml").write_text(f"services: {{web: {{image: a, {base}}}}}{TAIL}")
    (home / "more.yaml").write_text(f"services: {{web: {{{over}}}}}\n")
    theirs = compose(home, "-f", "compose.yaml", "-f", "more.yaml", "config", "--hash", "web").split()[1]
    project = load_project([str(home / "compose.yaml"), str(home / "more.yaml")], env={})
    assert their_hash(project.service("web")) == theirs
