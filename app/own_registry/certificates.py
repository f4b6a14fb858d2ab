"""Certificates of a private registry: a root of its own, and the server's certificate that the root vouches for.

Every registry has its own root, which is trusted for that host and port only (certs.d), so that its key opens nothing
else. Keys are ECDSA P-256, which every client of today takes.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_ROOT_DAYS, _SERVER_DAYS = 3650, 825
_RENEW_BEFORE = datetime.timedelta(days=30)
_CLOCK_SKEW = datetime.timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Pair(...)"


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption())


def _begun(subject: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (x509.CertificateBuilder().subject_name(_name(subject)).issuer_name(issuer).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + datetime.timedelta(days=days)))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False)


def make_root(title: str) -> Pair:
    """A root that may vouch for servers, but for no further roots."""
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    made = (_begun(title, _name(title), key, _ROOT_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(identifier, critical=False).sign(key, hashes.SHA256()))
    return Pair(made.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def make_server(root: Pair, names: Sequence[str]) -> Pair:
    """A certificate for a server that is reached by *names*: host names and literal addresses."""
    root_certificate = x509.load_pem_x509_certificate(root.certificate)
    root_key = serialization.load_pem_private_key(root.key, password=None)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey), "roots are made here, with such keys"
    key = ec.generate_private_key(ec.SECP256R1())
    by = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    made = (_begun(names[0], root_certificate.subject, key, _SERVER_DAYS)
            .add_extension(x509.SubjectAlternativeName([_alternative(one) for one in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(by, critical=False).sign(root_key, hashes.SHA256()))
    return Pair(made.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def still_good(certificate: bytes, names: Sequence[str]) -> bool:
    """Whether a server's certificate is for all of *names* and lasts for another month."""
    found = x509.load_pem_x509_certificate(certificate)
    wanted = {_alternative(one) for one in names}
    has = set(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    return wanted <= has and expiry(certificate) > datetime.datetime.now(datetime.UTC) + _RENEW_BEFORE


def expiry(certificate: bytes) -> datetime.datetime:
    """When it ends."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of it, as browsers show it: to compare on the telephone."""
    digest = x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256())
    return ":".join(f"{byte:02X}" for byte in digest)
