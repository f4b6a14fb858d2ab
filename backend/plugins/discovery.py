"""Where plug-ins are found: sockets and description files in folders of the administrator's.

``NAME.sock`` is a plug-in's socket. ``NAME.spec`` holds its address in one line, ``NAME.json`` its address and TLS
files. Each may lie in a folder of its own name. Whoever may put a file there decides what the engine mounts and whom it
believes, so a folder or file that others than root may write is passed over.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from backend.errors import NotFound, ServerError

log = logging.getLogger(__name__)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)
_LARGEST = 1 << 16      # bytes of a description


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for TLS, "" where none is needed; ``insecure``: the plug-in's certificate is not checked."""

    insecure: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a plug-in answers: a socket's path, or a host and a port, there with TLS or without."""

    path: str = ""
    host: str = ""
    port: int = 0
    tls: Tls | None = None

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


class _TlsConfig(msgspec.Struct, rename="pascal"):
    insecure_skip_verify: bool = False
    ca_file: str = msgspec.field(name="CAFile", default="")
    cert_file: str = ""
    key_file: str = ""


class _Description(msgspec.Struct, rename="pascal"):
    addr: str
    name: str = ""
    tls_config: _TlsConfig | None = msgspec.field(name="TLSConfig", default=None)


def find(name: str, folders: Sequence[str]) -> Address:
    """The address of the plug-in *name*. NotFound in Docker's words; ServerError for a description without sense."""
    if NAME.fullmatch(name):
        for folder in folders:
            for kind in ("sock", "spec", "json"):
                for path in (f"{folder}/{name}.{kind}", f"{folder}/{name}/{name}.{kind}"):
                    if _trusted(path, socket=kind == "sock"):
                        return Address(path) if kind == "sock" else _described(path)
    raise NotFound(f'plugin "{name}" not found')


def names(folders: Sequence[str]) -> list[str]:
    """The plug-ins that are there."""
    return sorted({name for folder in folders for name in _names_in(folder)})


def _names_in(folder: str) -> Iterator[str]:
    try:
        entries = os.listdir(folder)
    except OSError:      # most machines have none of these folders
        return
    for entry in entries:
        name, dot, kind = entry.rpartition(".")
        if dot and kind in ("sock", "spec", "json") and NAME.fullmatch(name):
            yield name
        elif NAME.fullmatch(entry) and any(os.path.exists(f"{folder}/{entry}/{entry}.{kind}")
                                           for kind in ("sock", "spec", "json")):
            yield entry


def _trusted(path: str, *, socket: bool) -> bool:
    """The file is there, of the right kind, and only root could have put or changed it."""
    try:
        found, folder = os.stat(path), os.stat(os.path.dirname(path))
    except OSError:
        return False
    if not (stat.S_ISSOCK(found.st_mode) if socket else stat.S_ISREG(found.st_mode)):
        return False
    writable = stat.S_IWOTH if socket else stat.S_IWGRP | stat.S_IWOTH      # a group may be let in to a socket
    if folder.st_uid or found.st_uid or folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or (
            not socket and found.st_mode & writable):
        log.warning("the plug-in at %s is passed over: others than root may write there", path)
        return False
    return True


def _described(path: str) -> Address:
    try:
        with open(path, "rb") as source:
            data = source.read(_LARGEST + 1)
    except OSError as problem:
        raise ServerError(f"the plug-in's description {path} cannot be read: {problem.strerror}") from problem
    if len(data) > _LARGEST:
        raise ServerError(f"the plug-in's description {path} is larger than {_LARGEST} bytes")
    if path.endswith(".spec"):
        return parse_address(data.decode("utf-8", "replace").strip(), None, path)
    try:
        described = msgspec.json.decode(data, type=_Description)
    except msgspec.DecodeError as problem:
        raise ServerError(f"the plug-in's description {path} makes no sense: {problem}") from problem
    given = described.tls_config
    tls = None
    if given is not None:
        tls = Tls(given.insecure_skip_verify, given.ca_file, given.cert_file, given.key_file)
    return parse_address(described.addr, tls, path)


def parse_address(text: str, tls: Tls | None, source: str) -> Address:
    """``unix:///run/x.sock``, ``tcp://host:port``, ``http://…`` or ``https://…``. ServerError names *source*."""
    try:
        url = urlsplit(text)
        port = url.port or {"https": 443, "http": 80}.get(url.scheme, 0)
    except ValueError:
        url, port = urlsplit(""), 0
    if url.scheme == "unix" and url.path.startswith("/"):
        return Address(url.path)
    if url.scheme in ("tcp", "http", "https") and url.hostname and port:
        return Address(host=url.hostname, port=port, tls=tls or (Tls() if url.scheme == "https" else None))
    raise ServerError(f"the plug-in's description {source} has no address that could be used: {text[:200]!r}; "
                      "unix:///path, tcp://host:port or https://host:port is expected")
