"""Key pairs that sign images: ECDSA P-256, the private one in the encrypted form that cosign writes and reads.

That form is PEM around JSON: scrypt makes a key of the passphrase, NaCl's secretbox holds the PKCS #8. Plain and
encrypted PKCS #8, as openssl writes it, is read too.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import json
import os
import re
import secrets

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from app.cli.errors import Failure
from backend.credentials.config import write_private

#: Where the passphrase is looked for before it is asked for; the second is cosign's.
VARIABLES = ("SLIPWAY_KEY_PASSPHRASE", "COSIGN_PASSWORD")
_SEALED = re.compile(rb"-----BEGIN ENCRYPTED (?:SIGSTORE|COSIGN) PRIVATE KEY-----\s(.+?)-----END", re.DOTALL)
_TITLE = "ENCRYPTED SIGSTORE PRIVATE KEY"
_N, _R, _P, _SALT, _NONCE, _KEY = 1 << 16, 8, 1, 32, 24, 32
_N_LIMIT, _R_LIMIT, _P_LIMIT = 1 << 20, 16, 4


def passphrase(path: str, *, new: bool = False) -> str:
    """The passphrase of the key *path*, from the environment or the terminal."""
    for variable in VARIABLES:
        if variable in os.environ:
            return os.environ[variable]
    try:
        with open("/dev/tty", "r+b", buffering=0):
            pass
    except OSError:
        raise Failure(f"the key {path} needs its passphrase, and there is no terminal to ask on. Set {VARIABLES[0]}."
                      ) from None
    first = getpass.getpass(f"Passphrase of {path}: ")
    if new and first != getpass.getpass("Once more: "):
        raise Failure("the two passphrases are not the same; nothing was made.")
    return first


def generate(prefix: str) -> tuple[str, str]:
    """Makes ``PREFIX.key`` and ``PREFIX.pub``; returns their paths."""
    private, public = f"{prefix}.key", f"{prefix}.pub"
    for path in (private, public):
        if os.path.exists(path):
            raise Failure(f"{path} is there already; a key that is lost cannot be made again, so it is not replaced.")
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(private, _seal(key, passphrase(private, new=True)))
    with open(public, "wb") as file:
        file.write(public_pem(key))
    return private, public


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half, as PEM."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def load(path: str) -> ec.EllipticCurvePrivateKey:
    """The private key in the file *path*.

    Raises:
        Failure: it cannot be read, its passphrase is another one, or it is of another kind.
    """
    try:
        with open(path, "rb") as file:
            pem = file.read(1 << 16)
    except OSError as error:
        raise Failure(f"the key {path} cannot be read: {error.strerror}.") from None
    sealed = _SEALED.search(pem)
    try:
        if sealed is not None:
            key = serialization.load_der_private_key(_open(sealed[1], path), password=None)
        elif b"ENCRYPTED" in pem:
            key = serialization.load_pem_private_key(pem, password=passphrase(path).encode())
        else:
            key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise Failure(f"the key {path} cannot be opened: another passphrase, or no private key.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Failure(f"the key {path} is no key of ECDSA P-256; `slipway trust key generate` makes one.")
    return key


def _derive(word: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return Scrypt(salt=salt, length=_KEY, n=n, r=r, p=p).derive(word.encode())


def _seal(key: ec.EllipticCurvePrivateKey, word: str) -> bytes:
    from nacl.secret import SecretBox

    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8,
                            serialization.NoEncryption())
    salt, nonce = secrets.token_bytes(_SALT), secrets.token_bytes(_NONCE)
    box = SecretBox(_derive(word, salt, _N, _R, _P)).encrypt(der, nonce).ciphertext
    text = {"kdf": {"name": "scrypt", "params": {"N": _N, "r": _R, "p": _P}, "salt": base64.b64encode(salt).decode()},
            "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(nonce).decode()},
            "ciphertext": base64.b64encode(box).decode()}
    lines = base64.encodebytes(json.dumps(text, separators=(",", ":")).encode()).replace(b"\n", b"")
    body = b"\n".join(lines[at:at + 64] for at in range(0, len(lines), 64))
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (_TITLE.encode(), body, _TITLE.encode())


def _open(body: bytes, path: str) -> bytes:
    """The PKCS #8 in a sealed key. Raises ValueError."""
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    try:
        text = json.loads(base64.b64decode(body))
        params = text["kdf"]["params"]
        n, r, p = int(params["N"]), int(params["r"]), int(params["p"])
        salt, nonce = base64.b64decode(text["kdf"]["salt"]), base64.b64decode(text["cipher"]["nonce"])
        box = base64.b64decode(text["ciphertext"])
        known = (text["kdf"]["name"], text["cipher"]["name"]) == ("scrypt", "nacl/secretbox")
    except (binascii.Error, KeyError, TypeError) as error:
        raise ValueError("a damaged key") from error
    if not known or not (1 < n <= _N_LIMIT and 0 < r <= _R_LIMIT and 0 < p <= _P_LIMIT):
        raise ValueError("a key that was sealed in another way")
    try:
        return SecretBox(_derive(passphrase(path), salt, n, r, p)).decrypt(box, nonce)
    except CryptoError as error:
        raise ValueError("another passphrase") from error
