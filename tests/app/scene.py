"""A small world on a real helper, worth looking at: images, a stack, containers in every state. For pictures and tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from backend.client import Client
from backend.compose import execute as carry_out
from backend.compose import load_project, observe, reconcile
from backend.spec import api
from tests.support.images import docker_archive, tar_of
from tests.support.roots import busybox_tar

COMPOSE = """\
name: shop
services:
  web:
    image: demo/web:1.2
    stop_signal: KILL
    command: sh -c 'mkdir -p /www && echo "the shop" > /www/index.html && httpd -f -p 80 -h /www'
    ports: ["80"]
    environment:
      SHOP_NAME: ${SHOP_NAME:-The little shop}
      SHOP_DATABASE: db
    depends_on: [db]
    networks: [front, back]
    restart: unless-stopped
  worker:
    image: demo/worker:2.0
    stop_signal: KILL
    command: sh -c 'n=0; while true; do n=$$((n+1)); echo "order $$n packed"; sleep 0.7; done'
    networks: [back]
    depends_on: [db]
  db:
    image: demo/db:16
    stop_signal: KILL
    command: sh -c 'echo ready > /data/state; sleep infinity'
    volumes: ["data:/data"]
    networks: [back]
networks:
  front:
  back:
volumes:
  data:
"""
SPEAKER = ("n=0; while true; do n=$((n+1)); echo \"$(date +%T) GET /articles/$((n * 37 % 900)) 200 $((n % 40 + 3)) ms\"; "
           "[ $((n % 23)) = 0 ] && echo \"$(date +%T) warning: slow answer from the database: 812 ms\" >&2; sleep 0.15; done")


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 20):
        yield data[start:start + (1 << 20)]


async def add_image(client: Client, *names: str) -> None:
    """Import the machine's busybox under *names*."""
    root = busybox_tar()
    first, *others = names
    repository, _, tag = first.rpartition(":")
    async for _ in client.import_image(_pieces(root), repository=repository, tag=tag, message="from the machine's busybox"):
        pass
    for name in others:
        repository, _, tag = name.rpartition(":")
        await client.tag_image(first, repository, tag)


def layered() -> bytes:
    """An archive of an image in three layers, each of which did something different."""
    base = tar_of([("etc", None), ("etc/os-release", b"NAME=Demo\n"), ("etc/shop.conf", b"currency = EUR\n"), ("usr", None),
                   ("usr/share", None), ("usr/share/doc", b"x" * 400_000), ("var", None), ("var/cache", None), ("var/cache/packages", b"x" * 900_000)])
    program = tar_of([("usr", None), ("usr/local", None), ("usr/local/bin", None), ("usr/local/bin/shop", b"#!/bin/sh\n" + b"#" * 2_400_000),
                      ("var", None), ("var/cache", None), ("var/cache/.wh.packages", b"")])
    settings = tar_of([("etc", None), ("etc/shop.conf", b"currency = EUR\nname = The little shop\n"), ("srv", None), ("srv/menu.txt", b"tea\n" * 40)])
    history = [{"created": "2026-11-20T09:30:00Z", "created_by": "/bin/sh -c #(nop) ADD file:8c1b in / "},
               {"created": "2026-11-20T09:31:00Z", "created_by": "/bin/sh -c #(nop)  ENV SHOP_PORT=8080", "empty_layer": True},
               {"created": "2026-11-20T09:31:20Z", "created_by": "/bin/sh -c install-shop && rm /var/cache/packages"},
               {"created": "2026-11-20T09:31:30Z", "created_by": "COPY shop.conf menu.txt / # buildkit"}]
    return docker_archive([base, program, settings], tag="demo/shop:2.1", config={"history": history})


async def fill_registry(client: Client, address: str) -> None:
    """Push a few repositories to a registry."""
    for name, tags in (("team/shop", ("2.0", "2.1", "latest")), ("team/reports", ("2026.10", "2026.11")), ("tools/backup", ("1",))):
        for tag in tags:
            await client.tag_image("demo/shop:2.1", f"{address}/{name}", tag)
            async for _ in client.push_image(f"{address}/{name}", tag):
                pass
            await client.remove_image(f"{address}/{name}:{tag}")


async def run(client: Client, name: str, image: str, command: str, *, publish: str = "", memory: int = 0,
              binds: tuple[str, ...] = (), wait: bool = False, probe: str = "") -> str:
    """Create and start one; *wait*: until it has ended. Its ID."""
    host = api.HostConfig(memory=memory, binds=list(binds))
    exposed: dict[str, api.Empty] = {}
    if publish:
        host.port_bindings = {f"{publish}/tcp": [api.PortBinding(host_ip="127.0.0.1")]}
        exposed = {f"{publish}/tcp": api.Empty()}
    check = api.HealthConfig(test=["CMD-SHELL", probe], interval=2_000_000_000, timeout=1_000_000_000, retries=2) if probe else None
    made = await client.create_container(api.ContainerCreate(image=image, cmd=["sh", "-c", command], exposed_ports=exposed,
                                                            host_config=host, healthcheck=check), name=name)
    await client.start_container(made.id)
    if wait:
        await client.wait_container(made.id)
    return made.id


async def build(client: Client, folder: Path) -> dict[str, str]:
    """Make the world; the containers' IDs by name, and `compose`: the stack's file."""
    async for _ in client.pull_image("slipway/welcome:latest"):
        pass
    await add_image(client, "debian:stable-slim", "demo/web:1.2", "demo/worker:2.0", "demo/db:16", "registry.example.com/team/reports:2026.11")
    async for _ in client.load_images(_pieces(layered())):
        pass
    made = {
        "blog": await run(client, "blog", "demo/web:1.2", SPEAKER, publish="8080", memory=256 << 20, binds=("blog-articles:/articles",),
                          probe="echo articles can be read; ls /articles > /tmp/probe"),
        "reports": await run(client, "reports", "registry.example.com/team/reports:2026.11",
                             "echo 'reading 12 reports'; echo 'no database at db:5432' >&2; exit 3", wait=True),
        "migrate": await run(client, "migrate", "demo/db:16", "echo 'schema is up to date'", wait=True),
    }
    made["cache"] = await run(client, "cache", "demo/worker:2.0", "while true; do dd if=/dev/zero of=/tmp/x bs=1M count=20 2>/dev/null; sleep 0.4; done", publish="6379")
    paused = await run(client, "mail", "debian:stable-slim", "sleep infinity")
    await client.pause_container(paused)
    made["mail"] = paused
    articles = client.volume_files("blog-articles")
    await articles.make_directory("/pictures")
    await articles.write("/first.md", b"# The first article\n\nContainers run straight on the kernel here.\n")
    await articles.write("/second.md", b"# The second\n" + b"More words. " * 900)
    await articles.write("/pictures/harbour.png", b"\x89PNG" + bytes(340_000))
    await client.create_volume(api.VolumeCreate(name="old-uploads"))
    await client.volume_files("old-uploads").write("/report.pdf", bytes(1_900_000))
    file = folder / "shop" / "compose.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(COMPOSE)
    project = load_project([str(file)])

    async def anonymous(_reference: str) -> str:
        return ""
    report = await carry_out(client, reconcile(project, await observe(client, project)), lambda _step: None, credentials=anonymous)
    assert report.ok, report.failed
    made["compose"] = str(file)
    return made
