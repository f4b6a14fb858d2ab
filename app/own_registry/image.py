"""The image of a private registry, made of this machine's docker-registry program and the libraries that it loads."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import struct
import subprocess
import tarfile

from app.cli.errors import Failure

REPOSITORY = "slipway/registry"
DATA, SECRETS, PORT = "/var/lib/registry", "/run/registry", 5000
_PT_INTERP = 3
_CONFIG = f"""version: 0.1
log:
  level: info
storage:
  filesystem:
    rootdirectory: {DATA}
  delete:
    enabled: true
http:
  addr: :{PORT}
  headers:
    X-Content-Type-Options: [nosniff]
"""
CHANGES = ['ENTRYPOINT ["/usr/bin/docker-registry"]', 'CMD ["serve", "/etc/docker/registry/config.yml"]',
           f"EXPOSE {PORT}/tcp", f"VOLUME {DATA}", "LABEL org.opencontainers.image.title=Registry"]


def find_program() -> str:
    """The machine's registry. Raises :class:`Failure` with what to install."""
    found = shutil.which("docker-registry")
    if found is None:
        raise Failure("the registry is made of this machine's docker-registry, which is not installed. Install it "
                      "(Debian, Ubuntu: apt install docker-registry; it need not run), or name an image of it with "
                      "--image registry:2.")
    return os.path.realpath(found)


def root_tar(program: str) -> bytes:
    """The root file system: the same bytes for the same program and libraries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, mode: int, body: bytes | None = None) -> None:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.type = mode, tarfile.DIRTYPE if body is None else tarfile.REGTYPE
            entry.size = len(body or b"")
            tar.addfile(entry, io.BytesIO(body or b""))

        files = {"usr/bin/docker-registry": program, **{at.lstrip("/"): at for at in _libraries(program)}}
        folders = {"dev", "etc/docker/registry", "proc", "run/registry", "sys", "tmp", *map(os.path.dirname, files)}
        for folder in sorted({part for one in folders for part in _parents(one)}):
            add(folder, 0o755)
        # A volume that is new takes this mode: the registry does not run as root.
        for folder in _parents(DATA.lstrip("/")):
            add(folder, 0o1777 if folder == DATA.lstrip("/") else 0o755)
        for name, at in sorted(files.items()):
            with open(at, "rb") as file:
                add(name, 0o755, file.read())
        add("etc/docker/registry/config.yml", 0o644, _CONFIG.encode())
        add("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/false\n")
        add("etc/group", 0o644, b"root:x:0:\n")
    return out.getvalue()


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _libraries(program: str) -> list[str]:
    """What the program's own loader would load, the loader included; none for a static one."""
    with open(program, "rb") as file:
        loader = _loader(file.read(1 << 16))
    if not loader:
        return []
    listed = subprocess.run([loader, "--list", program], capture_output=True, text=True, check=False)
    if listed.returncode:
        raise Failure(f"the libraries of {program} cannot be found: {listed.stderr.strip()}")
    words = (line.split() for line in listed.stdout.splitlines())
    found = [line[2] for line in words if len(line) > 2 and line[1] == "=>" and line[2].startswith("/")]
    return sorted({loader, *found})


def _loader(elf: bytes) -> str:
    """The dynamic loader that *elf* asks for (elf(5), PT_INTERP); "" for a static program."""
    if elf[:4] != b"\x7fELF" or elf[4] != 2 or elf[5] != 1:
        raise Failure("this machine's docker-registry is no 64-bit little-endian program; name an image with --image.")
    offset, = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    for at in range(offset, offset + size * count, size):
        if struct.unpack_from("<I", elf, at)[0] == _PT_INTERP:
            start, = struct.unpack_from("<Q", elf, at + 8)
            length, = struct.unpack_from("<Q", elf, at + 32)
            return elf[start:start + length].rstrip(b"\0").decode()
    return ""


def tag_of(tar: bytes) -> str:
    """The image's tag: another program is another image."""
    return hashlib.sha256(tar).hexdigest()[:12]
