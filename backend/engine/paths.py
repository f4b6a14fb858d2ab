"""Where the engine keeps things, and the few ways in which it writes and removes files of its own."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass

from backend.errors import Unavailable
from backend.volumes import tree


@dataclass(frozen=True, slots=True)
class ContainerPaths:
    """The places of one container. All below directories of root's with mode 0700."""

    home: str            # <data-root>/containers/<id>
    bundle: str          # <exec-root>/bundles/<id>

    @property
    def upper(self) -> str:
        """What the container changed of its image."""
        return f"{self.home}/upper"

    @property
    def work(self) -> str:
        """overlayfs' own."""
        return f"{self.home}/work"

    @property
    def log(self) -> str:
        """Its log's directory."""
        return f"{self.home}/log"

    @property
    def stats(self) -> str:
        """The file of its usage over the last day."""
        return f"{self.home}/usage"

    @property
    def hosts(self) -> str:
        """/etc/hosts."""
        return f"{self.home}/hosts"

    @property
    def hostname(self) -> str:
        """/etc/hostname."""
        return f"{self.home}/hostname"

    @property
    def resolv_conf(self) -> str:
        """/etc/resolv.conf."""
        return f"{self.home}/resolv.conf"

    def files(self) -> dict[str, str]:
        """The three files of /etc (target -> source), as far as a start has written them."""
        wanted = {"/etc/hosts": self.hosts, "/etc/hostname": self.hostname, "/etc/resolv.conf": self.resolv_conf}
        return {target: source for target, source in wanted.items() if os.path.exists(source)}


class Paths:
    """The engine's directories."""

    def __init__(self, data_root: str, exec_root: str) -> None:
        self.data_root = os.path.abspath(data_root)
        self.exec_root = os.path.abspath(exec_root)
        self.state = f"{self.data_root}/state.db"
        self.images = f"{self.data_root}/images"
        self.trash = f"{self.data_root}/trash"
        self._containers = f"{self.data_root}/containers"
        self._bundles = f"{self.exec_root}/bundles"
        self.parts = f"{self.exec_root}/parts"           # parts of volumes, while a container is made of them

    def make(self) -> None:
        """Make what is missing. Raises :class:`Unavailable`."""
        try:
            for one in (self.data_root, self.exec_root, self.images, self.trash, self._containers,
                        self._bundles, self.parts):
                os.makedirs(one, mode=0o700, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"{error.filename}: {error.strerror}: the engine needs this directory") from error

    def container(self, identity: str) -> ContainerPaths:
        """The places of a container."""
        return ContainerPaths(f"{self._containers}/{identity}", f"{self._bundles}/{identity}")

    def make_container(self, identity: str) -> ContainerPaths:
        """Make the directories of a new container. The upper directory's mode is the container's root's."""
        places = self.container(identity)
        os.mkdir(places.home, 0o700)
        for one, mode in ((places.upper, 0o755), (places.work, 0o700)):
            os.mkdir(one, mode)
            os.chmod(one, mode)              # mkdir's mode went through the umask
        return places

    def known_containers(self) -> list[str]:
        """IDs of the containers that have a directory."""
        return os.listdir(self._containers)

    def known_bundles(self) -> list[str]:
        """IDs of the containers that have a bundle."""
        return os.listdir(self._bundles)

    def remove_bundle(self, identity: str) -> None:
        """Remove a bundle. Raises OSError for what should not be in it."""
        bundle = self.container(identity).bundle
        for remove, path in ((os.unlink, f"{bundle}/config.json"), (os.rmdir, f"{bundle}/rootfs"), (os.rmdir, bundle)):
            try:
                remove(path)
            except FileNotFoundError:
                continue

    def discard(self, path: str) -> str:
        """Move *path* out of sight at once; returns its name for :meth:`empty_trash`, "" if it was not there."""
        name = secrets.token_hex(8)
        try:
            os.rename(path, f"{self.trash}/{name}")
        except FileNotFoundError:
            return ""
        return name

    def empty_trash(self, name: str = "") -> None:
        """Remove what was discarded as *name*, or all of it (what an earlier engine did not get to). Blocking."""
        trash = os.open(self.trash, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for one in [name] if name else os.listdir(trash):
                tree.remove(trash, one)
        finally:
            os.close(trash)


def write(path: str, text: str, mode: int = 0o644) -> None:
    """Write a small file in place, so that a bind mount of it shows the new content."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        os.write(fd, text.encode())
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def write_bundle(places: ContainerPaths, config: bytes) -> None:
    """Write a bundle: config.json and the directory that the rootfs is mounted on."""
    os.makedirs(f"{places.bundle}/rootfs", mode=0o700, exist_ok=True)
    fd = os.open(f"{places.bundle}/config.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, config)
    finally:
        os.close(fd)
