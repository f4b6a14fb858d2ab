"""Signatures and policies: what proves something, what does not, and what is no policy."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import InvalidArgument
from backend.spec import cosign
from backend.spec.policy import Policy, Requirement, read_policy, signer
from backend.spec.reference import parse

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
DIGEST, ANOTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def pem(key: Any) -> bytes:
    data: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data


def keys(path: str) -> bytes:
    known = {"/keys/team.pub": pem(KEY), "/keys/other.pub": pem(OTHER), "/keys/bad.pub": b"nonsense",
             "/keys/rsa.pub": pem(rsa.generate_private_key(65537, 2048)), "/keys/p384.pub": pem(ec.generate_private_key(ec.SECP384R1()))}
    if path not in known:
        raise InvalidArgument(f"the key {path} cannot be read")
    return known[path]


def simple(digest: str = DIGEST, repository: str = "r.example/team/app", key: Any = KEY) -> cosign.Signature:
    payload = cosign.simple_payload(repository, digest)
    return cosign.again("simple", payload, cosign.sign(key, payload))


def bundle(digest: str = DIGEST, key: Any = KEY) -> cosign.Signature:
    return cosign.read_bundle(cosign.sign_bundle(key, digest))


SIGNED = Requirement("signed", read_policy(json.dumps({"default": [{"type": "sigstoreSigned", "keyPath": "/keys/team.pub"}]}).encode(), keys).default[0].keys)
APP = parse("r.example/team/app:1")


@pytest.mark.parametrize("make", [simple, bundle])
def test_a_signature_by_the_key_proves_the_digest(make: Any) -> None:
    found = signer(SIGNED, APP, [make(key=OTHER), make()], DIGEST)
    assert found is not None and found.name == "/keys/team.pub"


@pytest.mark.parametrize("signatures", [
    [], [simple(key=OTHER)], [bundle(key=OTHER)], [simple(digest=ANOTHER)], [bundle(digest=ANOTHER)],
    [simple(repository="r.example/team/other")],
], ids=["none", "another key", "another key's bundle", "another image", "another image's bundle", "another repository"])
def test_what_is_no_signature_of_this_image_proves_nothing(signatures: list[cosign.Signature]) -> None:
    assert signer(SIGNED, APP, signatures, DIGEST) is None


def test_a_document_changed_after_it_was_signed_proves_nothing() -> None:
    good = simple(digest=ANOTHER)
    changed = cosign.again("simple", good.payload.replace(b"b" * 64, b"a" * 64), good.signature)
    assert changed.digest == DIGEST and signer(SIGNED, APP, [changed], DIGEST) is None
    whole = json.loads(cosign.sign_bundle(KEY, ANOTHER))
    inner = base64.b64decode(whole["dsseEnvelope"]["payload"]).replace(b"b" * 64, b"a" * 64)
    whole["dsseEnvelope"]["payload"] = base64.b64encode(inner).decode()
    assert signer(SIGNED, APP, [cosign.read_bundle(json.dumps(whole).encode())], DIGEST) is None


def test_a_mirrored_image_is_proved_by_the_name_that_it_was_signed_under() -> None:
    exact = Requirement("signed", SIGNED.keys, "r.example/team/app")
    assert signer(exact, parse("mirror.example/app:1"), [simple()], DIGEST) is not None
    assert signer(SIGNED, parse("mirror.example/app:1"), [simple()], DIGEST) is None


def test_docker_hub_is_one_registry_by_all_of_its_names() -> None:
    assert signer(SIGNED, parse("busybox"), [simple(repository="index.docker.io/library/busybox")], DIGEST) is not None


@given(st.binary(max_size=300))
def test_bytes_of_a_registry_are_read_or_refused(data: bytes) -> None:
    for read in (cosign.read_bundle, lambda one: cosign.read_simple(one, "AA==")):
        with pytest.raises(InvalidArgument):
            read(data)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["dsseEnvelope", "payload", "payloadType", "signatures", "sig", "critical", "image", "identity", "type"]), inner, max_size=4)))
def test_json_of_any_shape_is_read_or_refused(document: Any) -> None:
    data = json.dumps(document).encode()
    for read in (cosign.read_bundle, lambda one: cosign.read_simple(one, "AA==")):
        with pytest.raises(InvalidArgument):
            read(data)


# --- policies ---------------------------------------------------------------------------------------------------------

def policy(**docker: str) -> Policy:
    names = {"accept": "insecureAcceptAnything", "reject": "reject"}
    return read_policy(json.dumps({"default": [{"type": "reject"}], "transports": {"docker": {
        scope: [{"type": names[kind]}] for scope, kind in docker.items()}}}).encode(), keys)


@pytest.mark.parametrize(("scopes", "image", "kind"), [
    ({}, "busybox", "reject"),
    ({"docker.io/library/busybox": "accept"}, "busybox", "accept"),
    ({"docker.io/library": "accept"}, "busybox:1.36", "accept"),
    ({"docker.io": "accept"}, "team/app", "accept"),
    ({"r.example/team": "accept"}, "r.example/team/app:1", "accept"),
    ({"r.example/team": "accept"}, "r.example/teamster/app:1", "reject"),
    ({"r.example/team": "accept", "r.example/team/app": "reject"}, "r.example/team/app:1", "reject"),
    ({"r.example/team/app:1": "accept"}, "r.example/team/app:1", "accept"),
    ({"r.example/team/app:1": "accept"}, "r.example/team/app:2", "reject"),
    ({"*.example": "accept"}, "r.example/x", "accept"),
    ({"*.example": "accept"}, "example/x", "reject"),
    ({"*.example": "accept"}, "r.example.evil/x", "reject"),
    ({"localhost:5000": "accept"}, "localhost:5000/x", "accept"),
    ({"localhost:5000": "accept"}, "localhost:5001/x", "reject"),
    ({"": "accept"}, "anything/at/all", "accept"),
])
def test_the_narrowest_scope_decides(scopes: dict[str, str], image: str, kind: str) -> None:
    assert [one.kind for one in policy(**scopes).requirements(parse(image).with_default_tag())] == [kind]


@pytest.mark.parametrize("text", [
    "", "[]", "{}", '{"default": []}', '{"default": [{}]}', '{"default": [{"type": "maybe"}]}', '{"default": [{"type": "signedBy"}]}',
    '{"default": [{"type": "reject", "more": 1}]}', '{"default": [{"type": "sigstoreSigned"}]}', '{"default": [{"type": "reject"}], "unknown": 1}',
    '{"default": [{"type": "sigstoreSigned", "keyPath": "/keys/none.pub"}]}', '{"default": [{"type": "sigstoreSigned", "keyPath": "/keys/bad.pub"}]}',
    '{"default": [{"type": "sigstoreSigned", "keyPath": "/keys/rsa.pub"}]}', '{"default": [{"type": "sigstoreSigned", "keyPath": "/keys/p384.pub"}]}',
    '{"default": [{"type": "sigstoreSigned", "keyData": "???"}]}', '{"default": [{"type": "sigstoreSigned", "keyPaths": "/keys/team.pub"}]}',
    '{"default": [{"type": "sigstoreSigned", "keyPath": "/keys/team.pub", "rekorPublicKeyPath": "/x"}]}',
    '{"default": [{"type": "sigstoreSigned", "keyPath": "/keys/team.pub", "signedIdentity": {"type": "remapIdentity"}}]}',
    '{"default": [{"type": "reject"}], "transports": {"docker": {"busybox/x": [{"type": "reject"}]}}}',
])
def test_a_policy_that_is_half_understood_is_no_policy(text: str) -> None:
    with pytest.raises(InvalidArgument):
        read_policy(text.encode(), keys)
