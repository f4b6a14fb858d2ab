"""Logins in one encrypted file, for machines with no session bus. It is made when its user asks for it, never by
itself.

``slipway/credentials.enc`` below the user's settings: JSON with the way to the key, and one AES-256-GCM box a registry.
The key is derived from a passphrase (scrypt) or read from a key file (32 random bytes, mode 0600) that may lie
elsewhere (a stick, a tmpfs filled at boot). Registry and user name are in the clear, so that a pull from a registry
without a login asks for no passphrase; they are bound into the box, so that no box passes for another's.

It protects the secrets in a backup, a stolen disk or a file read by mistake. It does not protect against who runs
programs as this user while the passphrase is in the environment, or who has the key file too; and who can write the
file can put back an older one.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backend.credentials.config import write_private
from backend.credentials.credential import Credential
from backend.errors import Conflict, InvalidArgument, Unauthorized, Unavailable

PASSPHRASE = "SLIPWAY_CREDENTIALS_PASSPHRASE"  # noqa: S105 - the name of a variable
_KEY_SIZE, _NONCE_SIZE, _SALT_SIZE = 32, 12, 16
_N, _R, _P = 1 << 17, 8, 1            # scrypt: 128 MiB and some 0.3 s
_N_LIMIT, _R_LIMIT, _P_LIMIT = 1 << 20, 16, 4
_SIZE_LIMIT = 4 << 20
_CHECK = "slipway credentials"


def settings_folder() -> str:
    """The user's settings of Slipway."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "slipway")


def path() -> str:
    """Where the file is."""
    return os.path.join(settings_folder(), "credentials.enc")


def exists() -> bool:
    """Whether the user has made one."""
    return os.path.exists(path())


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One writer of our files at a time: `docker compose pull` calls the helper many times at once."""
    os.makedirs(settings_folder(), mode=0o700, exist_ok=True)
    fd = os.open(os.path.join(settings_folder(), ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class _File:
    key: dict[str, Any]
    check: str
    entries: dict[str, dict[str, str]]

    def write(self) -> None:
        document = {"version": 1, "key": self.key, "check": self.check, "entries": self.entries}
        write_private(path(), json.dumps(document, indent=1).encode() + b"\n")


def _read() -> _File:
    try:
        with open(path(), "rb") as file:
            document = json.loads(file.read(_SIZE_LIMIT))
        if document["version"] != 1:
            raise InvalidArgument(f"{path()} is of a newer version of Slipway than this one. Use that one.")
        entries = {str(name): {"username": str(entry["username"]), "box": str(entry["box"])}
                   for name, entry in document["entries"].items()}
        return _File(dict(document["key"]), str(document["check"]), entries)
    except FileNotFoundError:
        raise Unavailable(f"There is no encrypted file {path()}. Make one with `docker-credential-slipway "
                          "create-file`.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable(f"{path()} cannot be read ({type(error).__name__}). Remove it, make a new one with "
                          "`docker-credential-slipway create-file`, and sign in again.") from None


# --- the key ----------------------------------------------------------------------------------------------------------

def _derive(passphrase: str, how: dict[str, Any]) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    n, r, p = int(how["n"]), int(how["r"]), int(how["p"])
    if not (1 < n <= _N_LIMIT and 0 < r <= _R_LIMIT and 0 < p <= _P_LIMIT):
        raise Unavailable(f"{path()} asks for more work than is sensible; it was not made by Slipway.")
    return Scrypt(salt=base64.b64decode(how["salt"]), length=_KEY_SIZE, n=n, r=r, p=p).derive(passphrase.encode())


def _key_file(at: str) -> bytes:
    """The key in the file *at*, which nobody else may read."""
    try:
        fd = os.open(at, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise Unavailable(f"The key file {at} cannot be opened: {error.strerror}. Mount the medium it is on, or put it "
                          "back.") from None
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (os.geteuid(), 0) or found.st_mode & 0o077:
            raise Unavailable(f"The key file {at} can be read by others, or is not yours. Run: chmod 600 {at}")
        key = file.read(_KEY_SIZE + 1)
    if len(key) != _KEY_SIZE:
        raise Unavailable(f"The key file {at} does not hold a key of {_KEY_SIZE} bytes. Put the right one back.")
    return key


def ask_passphrase(prompt: str) -> str:
    """From the environment, else from the terminal; never from stdin, which belongs to the protocol."""
    given = os.environ.get(PASSPHRASE)
    if given:
        return given
    import getpass

    try:
        with open("/dev/tty", "r+b", buffering=0):
            pass
    except OSError:
        raise Unavailable(f"The encrypted file {path()} needs its passphrase, and there is no terminal to ask on. Set "
                          f"{PASSPHRASE}, or make the file with a key file (`docker-credential-slipway create-file "
                          "--key-file PATH`).") from None
    return getpass.getpass(prompt)


def _key(file: _File) -> bytes:
    kind = file.key.get("kind")
    try:
        if kind == "passphrase":
            key = _derive(ask_passphrase(f"Passphrase of {path()}: "), file.key)
        elif kind == "file":
            key = _key_file(str(file.key["path"]))
        else:
            raise Unavailable(f"{path()} has a key of a kind that is not known ({kind!r}).")
    except (KeyError, ValueError, TypeError):
        raise Unavailable(f"{path()} is damaged. Remove it and sign in again.") from None
    if _open(key, file.check, _CHECK) is None:
        raise Unauthorized(f"That is not the {'passphrase' if kind == 'passphrase' else 'key'} of {path()}.")
    return key


# --- boxes ------------------------------------------------------------------------------------------------------------

def _seal(key: bytes, secret: str, bound_to: str) -> str:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(_NONCE_SIZE)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, secret.encode(), bound_to.encode())).decode()


def _open(key: bytes, box: str, bound_to: str) -> str | None:
    """What is in the box; None where the key or what it is bound to is another one."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        data = base64.b64decode(box, validate=True)
        return AESGCM(key).decrypt(data[:_NONCE_SIZE], data[_NONCE_SIZE:], bound_to.encode()).decode()
    except (InvalidTag, ValueError):
        return None


def _bond(registry: str, username: str) -> str:
    return json.dumps([registry, username])


# --- what others call -------------------------------------------------------------------------------------------------

def create(*, passphrase: str = "", key_file: str = "") -> None:
    """Make the file, empty. With *key_file*, that is made too where it is not there yet.

    Raises:
        Conflict: there is one already.
        InvalidArgument: neither or both were given.
    """
    if bool(passphrase) == bool(key_file):
        raise InvalidArgument("The encrypted file needs a passphrase or a key file.")
    with locked():
        if exists():
            raise Conflict(f"{path()} is there already. Remove it first if its logins are to be forgotten.")
        if passphrase:
            salt = base64.b64encode(secrets.token_bytes(_SALT_SIZE)).decode()
            how: dict[str, Any] = {"kind": "passphrase", "salt": salt, "n": _N, "r": _R, "p": _P}
            key = _derive(passphrase, how)
        else:
            key_file = os.path.abspath(key_file)
            if not os.path.exists(key_file):
                write_private(key_file, secrets.token_bytes(_KEY_SIZE))
            how, key = {"kind": "file", "path": key_file}, _key_file(key_file)
        _File(how, _seal(key, _CHECK, _CHECK), {}).write()


def names() -> dict[str, str]:
    """Registry -> user name of what is kept; needs no key. Nothing where there is no file."""
    return {name: entry["username"] for name, entry in _read().entries.items()} if exists() else {}


def load(registry: str) -> Credential | None:
    """The login kept under the key *registry*.

    Raises:
        Unauthorized: wrong passphrase or key.
        Unavailable: the file or its key cannot be read.
    """
    file = _read()
    entry = file.entries.get(registry)
    if entry is None:
        return None
    said = _open(_key(file), entry["box"], _bond(registry, entry["username"]))
    if said is None:
        raise Unavailable(f"The login of {registry} in {path()} was not written by Slipway. Sign in again.")
    found = json.loads(said)
    return Credential(registry, entry["username"], found.get("password", ""), found.get("identity_token", ""))


def save(credential: Credential) -> None:
    """Keep *credential* under its registry; what was there is replaced."""
    secret = json.dumps({"password": credential.password, "identity_token": credential.identity_token})
    with locked():
        file = _read()
        box = _seal(_key(file), secret, _bond(credential.registry, credential.username))
        file.entries[credential.registry] = {"username": credential.username, "box": box}
        file.write()


def erase(registry: str) -> bool:
    """Forget *registry*; whether it was there. Needs no key."""
    if not exists():
        return False
    with locked():
        file = _read()
        found = file.entries.pop(registry, None) is not None
        if found:
            file.write()
    return found
