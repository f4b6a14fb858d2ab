"""An image store of one's own, with the confined work done in a child that this module forks by executing Python."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.images import ImageStore
from backend.images.types import ProgressLine, RegistrySettings

ROOT = Path(__file__).resolve().parents[2]
_CHILD = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from backend.runtime import erofs, untar, tarstream
source, target = int(sys.argv[3]), int(sys.argv[4])
try:
    if sys.argv[2] == "unpack":
        os.umask(0); os.fchdir(target); os.chroot("."); os.chdir("/")
        result = untar.untar(source, target)
    else:
        result = erofs.build_index(source, target)
    print(json.dumps({"entries": result.entries, "size": result.size}))
except tarstream.BadTar as error:
    print(json.dumps({"error": str(error)}))
"""


_known_form: dict[str, Any] = {}  # what this kernel can, found out by the first store


@dataclass(frozen=True)
class Result:
    entries: int
    size: int


class LocalConfined:
    """As the keeper's: each work in a process of its own, chrooted where it unpacks."""

    async def _run(self, what: str, source: int, target: int) -> Result:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _CHILD, str(ROOT), what, str(source), str(target), pass_fds=(source, target),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        out, err = await child.communicate()
        if child.returncode:
            raise RuntimeError(err.decode(errors="replace")[-2000:])
        answer = json.loads(out)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return Result(answer["entries"], answer["size"])

    async def unpack(self, tar: int, target: int) -> Result:
        return await self._run("unpack", tar, target)

    async def index(self, tar: int, index: int) -> Result:
        return await self._run("index", tar, index)


@contextlib.asynccontextmanager
async def store(at: str | None = None, *, settings: RegistrySettings | None = None, form: Any = None) -> AsyncIterator[ImageStore]:
    """An open store in a folder of its own (or *at*), closed and, where it made the folder, removed at the end."""
    folder = at or tempfile.mkdtemp(prefix="slipway-images-")
    made = ImageStore(folder, LocalConfined(), settings or RegistrySettings(), form=form or (_known_form.get("best") if at is None else None))
    await made.open()
    if at is None and form is None:
        _known_form["best"] = made.layers.form
    try:
        yield made
    finally:
        await made.close()
        if at is None:
            shutil.rmtree(folder)


def tar_of(files: Iterable[tuple[str, bytes | tarfile.TarInfo | None]]) -> bytes:
    """A tar: (name, contents), (name, None) for a directory, or a ready TarInfo."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, what in files:
            if isinstance(what, tarfile.TarInfo):
                what.name = name
                tar.addfile(what)
                continue
            info = tarfile.TarInfo(name)
            if what is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            else:
                info.size, info.mode = len(what), 0o644
            info.mtime = 1_700_000_000
            tar.addfile(info, io.BytesIO(what or b""))
    return out.getvalue()


async def pieces(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def nothing(line: ProgressLine) -> None:
    """Nobody looks at the progress."""


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def docker_archive(layers: list[bytes], *, tag: str = "made:1", compress: bool = False, config: dict[str, Any] | None = None) -> bytes:
    """An archive as docker save made it before 25."""
    document = {"architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "amd64"), "os": "linux",
                "created": "2024-01-02T03:04:05Z", "config": {"Cmd": ["/bin/true"]}, **(config or {}),
                "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in layers]}}
    body = json.dumps(document).encode()
    name = digest(body)[7:] + ".json"
    files: list[tuple[str, bytes | tarfile.TarInfo | None]] = [(name, body)]
    for number, one in enumerate(layers):
        files.append((f"{number}/layer.tar", gzip.compress(one) if compress else one))
    manifest = [{"Config": name, "RepoTags": [tag] if tag else None, "Layers": [f"{n}/layer.tar" for n in range(len(layers))]}]
    files.append(("manifest.json", json.dumps(manifest).encode()))
    return tar_of(files)
