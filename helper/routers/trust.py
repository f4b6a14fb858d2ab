"""Signatures of images and the policy that asks for them: /slipway/trust."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from backend.engine.trust import Found
from backend.errors import InvalidArgument
from backend.spec.api.trust import (
    TrustKey,
    TrustPolicy,
    TrustRequirement,
    TrustSignature,
    TrustSignatures,
    TrustSigned,
    TrustVerdict,
)
from backend.spec.policy import Requirement
from helper import web
from helper.call import Call, Route, answer, empty
from helper.routers.images import registry_auth


def _needed(call: Call, name: str) -> str:
    value = call.query.get(name, "")
    if not value:
        raise InvalidArgument(f"{name} is needed: the name of an image")
    return value


def _shown(requirements: Sequence[Requirement]) -> list[TrustRequirement]:
    return [TrustRequirement(one.kind, [TrustKey(key.name, key.pem.decode(errors="replace")) for key in one.keys],
                             one.identity) for one in requirements]


async def policy(call: Call) -> web.StreamResponse:
    found = call.engine.trust.policy()
    return answer(TrustPolicy(call.engine.trust.path, call.engine.trust.present, _shown(found.default),
                              {scope: _shown(one) for scope, one in found.scopes.items()}))


async def signatures(call: Call) -> web.StreamResponse:
    """Asks the registry; with X-Registry-Auth as for a pull."""
    name = _needed(call, "reference")
    auth = registry_auth(call.http.headers.get("X-Registry-Auth", ""))
    digest, found = await call.engine.trust.look(name, auth)
    return answer(TrustSignatures(name, digest, [_row(one) for one in found]))


def _row(one: Found) -> TrustSignature:
    found = one.signature
    return TrustSignature(found.form, found.digest, found.reference, _text(found.payload), _text(found.signature),
                          list(one.keys))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def put(call: Call) -> web.StreamResponse:
    """Puts a signature that the caller made into the registry; the private key stays with him."""
    name = _needed(call, "reference")
    auth = registry_auth(call.http.headers.get("X-Registry-Auth", ""))
    wish = await call.json(TrustSigned)
    try:
        payload, signature = (base64.b64decode(one, validate=True) for one in (wish.payload, wish.signature))
    except (binascii.Error, ValueError):
        raise InvalidArgument("payload and signature are base64") from None
    await call.engine.trust.put(name, wish.form, payload, signature, auth)
    return empty(201)


async def verdict(call: Call) -> web.StreamResponse:
    reason = call.engine.trust.verdict(_needed(call, "image"))
    return answer(TrustVerdict(not reason, reason))


ROUTES = [
    Route("GET", "/slipway/trust/policy", policy),
    Route("GET", "/slipway/trust/signatures", signatures, abortable=True),
    Route("POST", "/slipway/trust/signatures", put),
    Route("GET", "/slipway/trust/verdict", verdict),
]
