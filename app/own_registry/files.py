"""The files of a private registry, in a folder of the user's: its root, its certificate, its users.

``registries/NAME`` below the user's data: ``root.pem``, ``root.key`` (never shown to the container) and ``serve``,
which the container sees: ``cert.pem``, ``key.pem``, ``htpasswd``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.cli.errors import Failure, Usage
from app.own_registry import certificates
from backend.credentials.config import write_private

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_USER = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_COST = 11       # bcrypt: some 0.1 s for each request's password, which the registry checks again and again
_LONGEST = 72    # bytes that bcrypt looks at


def folder_of(name: str) -> str:
    """Where the files of the registry *name* are. Raises :class:`Usage` for what cannot be a name."""
    if not _NAME.fullmatch(name):
        raise Usage(f"{name!r} cannot be the name of a registry: letters, digits, _ . and - only.")
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.path.join(base, "slipway", "registries", name)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


@dataclass(frozen=True, slots=True)
class Files:
    """The folder of one registry."""

    folder: str

    @property
    def serve(self) -> str:
        """What the container sees."""
        return os.path.join(self.folder, "serve")

    @property
    def root(self) -> str:
        """The root's certificate: what clients need."""
        return os.path.join(self.folder, "root.pem")

    def make_certificates(self, title: str, names: Sequence[str]) -> None:
        """Root and server certificate, made or renewed where they have to be; a root that is there stays."""
        kept = certificates.Pair(_read(self.root), _read(f"{self.folder}/root.key"))
        root = kept if kept.certificate and kept.key else certificates.make_root(f"Slipway registry {title}")
        if root is not kept:
            write_private(f"{self.folder}/root.key", root.key)
            write_private(self.root, root.certificate)
            os.chmod(self.root, 0o644)
        old = _read(f"{self.serve}/cert.pem")
        if root is kept and old and certificates.still_good(old, names):
            return
        server = certificates.make_server(root, names)
        write_private(f"{self.serve}/key.pem", server.key)
        write_private(f"{self.serve}/cert.pem", server.certificate)

    def certificate(self) -> bytes:
        """The server's certificate; empty where it has none."""
        return _read(f"{self.serve}/cert.pem")

    def users(self) -> dict[str, str]:
        """User -> bcrypt of the password."""
        lines = _read(f"{self.serve}/htpasswd").decode().splitlines()
        return dict(line.partition(":")[::2] for line in lines if ":" in line)

    def set_user(self, user: str, password: str | None) -> None:
        """Lets *user* in with *password*; None: no longer. A registry that runs reads the file anew."""
        import bcrypt

        if not _USER.fullmatch(user):
            raise Usage(f"{user!r} cannot be the name of a user: letters, digits, _ . @ and - only.")
        users = self.users()
        if password is None:
            if users.pop(user, None) is None:
                raise Failure(f"the registry has no user {user}.")
        else:
            data = password.encode()
            if not 8 <= len(data) <= _LONGEST:
                raise Failure(f"a password has 8 to {_LONGEST} bytes (bcrypt looks at no more).")
            users[user] = bcrypt.hashpw(data, bcrypt.gensalt(_COST)).decode()
        write_private(f"{self.serve}/htpasswd", "".join(f"{name}:{word}\n" for name, word in users.items()).encode())
