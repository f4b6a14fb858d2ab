"""Root file systems to import: busybox in memory, and a Debian made once by debootstrap and kept."""

from __future__ import annotations

import fcntl
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path


def busybox_tar() -> bytes:
    """A root file system of the machine's static busybox, with its applets as links."""
    program = shutil.which("busybox")
    if program is None:
        raise LookupError("busybox-static is not installed")
    applets = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(name: str, kind: bytes, body: bytes = b"", link: str = "", mode: int = 0o755) -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, len(body)
            tar.addfile(entry, io.BytesIO(body))

        for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "var"):
            add(name, tarfile.DIRTYPE)
        add("tmp", tarfile.DIRTYPE, mode=0o1777)
        add("bin/busybox", tarfile.REGTYPE, Path(os.path.realpath(program)).read_bytes())
        for applet in applets:
            if applet != "busybox":
                add(f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        add("etc/passwd", tarfile.REGTYPE, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", mode=0o644)
        add("etc/group", tarfile.REGTYPE, b"root:x:0:\nnobody:x:65534:\n", mode=0o644)
    return out.getvalue()


def debian_mirror() -> str:
    """The mirror that this machine's own apt uses, or Debian's."""
    for place in ("/etc/apt/sources.list", *sorted(str(p) for p in Path("/etc/apt/sources.list.d").glob("*"))):
        if not os.path.exists(place):
            continue
        for line in Path(place).read_text().splitlines():
            found = re.match(r"(?:URIs: |deb (?:\[[^]]*\] )?)(\S+/debian/?)(?: |$)", line)
            if found:
                return found[1]
    return "http://deb.debian.org/debian"


def debian_tar() -> Path:
    """A Debian root (``debootstrap --variant=minbase``) as a tar, made once a machine and kept in the cache.

    Raises:
        LookupError: debootstrap is missing or failed; the text says why.
    """
    return _bootstrapped("debian-minbase")


def servers_tar() -> Path:
    """A Debian root with redis-server, nginx, PostgreSQL 15 and dig, made once a machine (two minutes) and kept in the cache.

    Raises:
        LookupError: debootstrap is missing or failed; the text says why.
    """
    return _bootstrapped("debian-servers-2", "redis-server", "nginx-light", "postgresql-15", "bind9-dnsutils")


def _bootstrapped(name: str, *packages: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "slipway-tests")
    cache.mkdir(parents=True, exist_ok=True)
    ready = cache / f"{name}.tar"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ready.exists():
            return ready
        program = shutil.which("debootstrap", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            raise LookupError("debootstrap is not installed")
        root = tempfile.mkdtemp(dir=cache)
        try:
            more = [f"--include={','.join(packages)}"] if packages else []
            done = subprocess.run([program, "--variant=minbase", *more, "bookworm", root, debian_mirror()], capture_output=True, text=True)
            if done.returncode:
                raise LookupError(f"debootstrap failed: {done.stdout[-500:]}{done.stderr[-500:]}")
            for place in ("var/cache/apt", *(("var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale") if packages else ())):
                shutil.rmtree(f"{root}/{place}", ignore_errors=True)
            part = ready.with_suffix(".part")
            subprocess.run(["tar", "-C", root, "--numeric-owner", "-cf", str(part), "."], check=True)
            part.rename(ready)
        finally:
            shutil.rmtree(root, ignore_errors=True)
    return ready
