"""The built-in image ``slipway/welcome``: a small page, served by the machine's own static busybox.

It lets the first container run with no registry in reach. It is made when somebody first asks for it (a pull of
``slipway/welcome``), not at start, so that an engine that nobody shows it to does not carry it.
"""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterable
from pathlib import Path

import resources
from backend.errors import Unavailable

REFERENCE = "slipway/welcome:latest"
BUSYBOX_PLACES = ("/bin/busybox", "/usr/bin/busybox", "/usr/bin/busybox-static", "/usr/sbin/busybox")
_USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = "root:x:0:\nnobody:x:65534:\n"
_PT_INTERP = 3


def image_config(architecture: str) -> dict[str, object]:
    """The image configuration (OCI image-spec, config.md) of the built-in image, without its rootfs section."""
    return {
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["/welcome.sh"],
            "ExposedPorts": {"80/tcp": {}},
            "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.title": "Slipway welcome"},
        },
    }


def is_static(elf: bytes) -> bool:
    """Whether *elf* is a 64- or 32-bit program that asks for no dynamic loader (elf(5), PT_INTERP)."""
    if elf[:4] != b"\x7fELF":
        return False
    order = "<" if elf[5] == 1 else ">"
    if elf[4] == 2:
        offset, = struct.unpack_from(order + "Q", elf, 32)
        size, count = struct.unpack_from(order + "HH", elf, 54)
    else:
        offset, = struct.unpack_from(order + "I", elf, 28)
        size, count = struct.unpack_from(order + "HH", elf, 42)
    return all(struct.unpack_from(order + "I", elf, offset + i * size)[0] != _PT_INTERP for i in range(count))


def find_busybox(places: Iterable[str] = BUSYBOX_PLACES) -> bytes:
    """The machine's static busybox.

    Raises:
        Unavailable: there is none; the message says what to install.
    """
    for place in places:
        try:
            program = Path(place).read_bytes()
        except OSError:
            continue
        if is_static(program):
            return program
    raise Unavailable(
        "The built-in image slipway/welcome is made from a static busybox, and none was found on this machine. "
        "Install the package busybox-static (Debian, Ubuntu) or busybox (Fedora, Arch)."
    )


def root_tar(busybox: bytes) -> bytes:
    """The root file system of the built-in image as an uncompressed tar; the same bytes for the same busybox."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, mode: int, kind: bytes, body: bytes = b"", link: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.type, entry.linkname, entry.size = mode, kind, link, len(body)
            tar.addfile(entry, io.BytesIO(body))

        for name in ("bin", "dev", "etc", "home", "proc", "sys", "usr", "usr/bin", "var", "www"):
            add(name, 0o755, tarfile.DIRTYPE)
        add("root", 0o700, tarfile.DIRTYPE)
        add("tmp", 0o1777, tarfile.DIRTYPE)
        add("bin/busybox", 0o755, tarfile.REGTYPE, busybox)
        # Applet names stand in the program as a table of NUL-separated words: link only what this build has.
        for applet in resources.text("welcome/applets.txt").split():
            if b"\0" + applet.encode() + b"\0" in busybox:
                add(f"bin/{applet}", 0o777, tarfile.SYMTYPE, link="busybox")
        add("etc/passwd", 0o644, tarfile.REGTYPE, _USERS.encode())
        add("etc/group", 0o644, tarfile.REGTYPE, _GROUP.encode())
        add("www/index.html", 0o644, tarfile.REGTYPE, resources.data("welcome/index.html"))
        add("welcome.sh", 0o755, tarfile.REGTYPE, resources.data("welcome/welcome.sh"))
    return out.getvalue()
