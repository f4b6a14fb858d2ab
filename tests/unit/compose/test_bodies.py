"""From the model to the bodies of the Engine API."""

from __future__ import annotations

from backend.compose.bodies import container_body, network_body, volume_body
from backend.spec import api
from tests.unit.compose.conftest import Load


def test_a_container_is_asked_for_as_docker_compose_asks(load: Load) -> None:
    project = load("""
services:
  web:
    image: a
    command: sh -c x
    entrypoint: []
    environment: {A: 1, B: }
    ports: ["127.0.0.1:8080:80", "81"]
    expose: [90]
    volumes: [data:/d:ro, ./x:/x, /anon, {type: bind, source: ./y, target: /y}]
    networks: {default: {ipv4_address: 10.0.0.5}, front: {aliases: [www], priority: 5}}
    depends_on: {db: {condition: service_healthy, restart: true}}
    restart: on-failure:3
    stop_grace_period: 1500ms
    healthcheck: {test: x, interval: 5s}
    extra_hosts: ["h=::1"]
    tmpfs: /run:size=1m
    labels: {mine: "1"}
  db: {image: b}
volumes: {data: }
networks: {front: }
""")
    body = api.to_builtins(container_body(project, project.service("web"), 2, "sha256:1"))
    assert body["Image"] == "a" and body["Cmd"] == ["sh", "-c", "x"] and body["Entrypoint"] == [""]
    assert body["Env"] == ["A=1", "B"] and body["StopTimeout"] == 2
    assert sorted(body["ExposedPorts"]) == ["80/tcp", "81/tcp", "90/tcp"]
    assert body["Healthcheck"]["Test"] == ["CMD-SHELL", "x"] and body["Healthcheck"]["Interval"] == 5 * 10**9
    host = body["HostConfig"]
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
                                    "81/tcp": [{"HostIp": "", "HostPort": ""}]}
    assert host["Binds"] == ["shop_data:/d:ro", f"{project.directory}/x:/x:rw"]
    assert [(m["Type"], m["Source"], m["Target"]) for m in host["Mounts"]] == [
        ("volume", "", "/anon"), ("bind", f"{project.directory}/y", "/y")]
    assert host["NetworkMode"] == "shop_front" and host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["ExtraHosts"] == ["h:::1"] and host["Tmpfs"] == {"/run": "size=1m"}
    assert host["MaskedPaths"] is None and host["ReadonlyPaths"] is None, "null keeps the engine's list, [] would clear it"
    ends = body["NetworkingConfig"]["EndpointsConfig"]
    assert list(ends) == ["shop_front", "shop_default"]
    assert ends["shop_front"]["Aliases"] == ["shop-web-2", "web", "www"]
    assert ends["shop_default"]["IPAMConfig"] == {"IPv4Address": "10.0.0.5"}
    labels = body["Labels"]
    assert labels["mine"] == "1" and labels["com.docker.compose.project"] == "shop"
    assert labels["com.docker.compose.service"] == "web" and labels["com.docker.compose.container-number"] == "2"
    assert labels["com.docker.compose.oneoff"] == "False" and labels["com.docker.compose.image"] == "sha256:1"
    assert labels["com.docker.compose.depends_on"] == "db:service_healthy:true"
    assert labels["com.docker.compose.project.config_files"] == project.files[0]
    assert labels["com.docker.compose.project.working_dir"] == project.directory


def test_networks_and_volumes_carry_their_labels(load: Load) -> None:
    project = load("services: {web: {image: a, networks: [n], volumes: ['v:/v']}}\n"
                   "networks: {n: {internal: true, enable_ipv6: true, ipam: {config: [{subnet: 10.9.0.0/24}]}}}\n"
                   "volumes: {v: {driver_opts: {type: tmpfs}}}")
    network = api.to_builtins(network_body(project, project.network("n")))
    assert network["Name"] == "shop_n" and network["Internal"] and network["EnableIPv6"]
    assert network["IPAM"]["Config"] == [{"Subnet": "10.9.0.0/24"}]
    assert network["Labels"]["com.docker.compose.network"] == "n"
    volume = api.to_builtins(volume_body(project, project.volume("v")))
    assert volume["Name"] == "shop_v" and volume["DriverOpts"] == {"type": "tmpfs"}
    assert volume["Labels"]["com.docker.compose.volume"] == "v"


def test_network_mode_takes_no_endpoints(load: Load) -> None:
    project = load("services: {web: {image: a, network_mode: host}}")
    body = container_body(project, project.service("web"), 1)
    assert body.host_config.network_mode == "host" and body.networking_config.endpoints_config == {}
    assert project.networks == ()
