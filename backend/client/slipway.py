"""What Slipway's engine has beyond Docker's API; another engine answers NotFound to all of it."""

from __future__ import annotations

from urllib.parse import quote

from backend.client.connection import Connection
from backend.spec.api.layers import Catalog, ImageLayer, LayerFiles, TagList
from backend.spec.api.trust import TrustSignatures, TrustVerdict


def _enc(ref: str) -> str:
    return quote(ref, safe="")


class SlipwayCalls:
    """The part of the client under ``/slipway/…`` that is about images, registries and trust."""

    connection: Connection

    async def image_layers(self, ref: str) -> list[ImageLayer]:
        """Lowest first, with the step that made each."""
        return await self.connection.call("GET", f"/slipway/images/{_enc(ref)}/layers", list[ImageLayer])

    async def layer_files(self, ref: str, number: int, path: str = "/") -> LayerFiles:
        """A directory of a layer: what it added, changed and removed there."""
        return await self.connection.call("GET", f"/slipway/images/{_enc(ref)}/layers/{number}/files", LayerFiles,
                                          query={"path": path})

    async def trust_verdict(self, ref: str) -> TrustVerdict:
        """Whether the trust policy lets an image of the store run."""
        return await self.connection.call("GET", "/slipway/trust/verdict", TrustVerdict, query={"image": ref})

    async def trust_signatures(self, reference: str, *, auth: str = "") -> TrustSignatures:
        """What is signed of *reference* at its registry."""
        return await self.connection.call("GET", "/slipway/trust/signatures", TrustSignatures,
                                          query={"reference": reference}, headers=_auth(auth))

    async def registry_catalog(self, host: str, *, auth: str = "", last: str = "", limit: int = 100) -> Catalog:
        """A page of a registry's repositories; *auth* is the value of X-Registry-Auth."""
        return await self.connection.call("GET", f"/slipway/registries/{_enc(host)}/catalog", Catalog,
                                          query={"n": limit, "last": last or None}, headers=_auth(auth))

    async def registry_tags(self, host: str, repository: str, *, auth: str = "") -> TagList:
        """All tags of a repository at its registry."""
        return await self.connection.call(
            "GET", f"/slipway/registries/{_enc(host)}/repositories/{_enc(repository)}/tags", TagList,
            headers=_auth(auth))


def _auth(auth: str) -> dict[str, str] | None:
    return {"X-Registry-Auth": auth} if auth else None
