"""Images: lists, pulls, archives, names, removal."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from backend.errors import InvalidArgument
from backend.images.types import ProgressLine, RegistryAuth
from backend.spec import api
from backend.spec.reference import parse
from helper import web
from helper.call import Call, Route, answer, empty, progress_stream, stream
from helper.params import boolean, integer


def registry_auth(header: str) -> RegistryAuth | None:
    """X-Registry-Auth: URL-safe base64 of JSON, with or without padding; "{}" and "null" mean none.

    Raises:
        InvalidArgument: it is malformed (the text says nothing of what is in it).
    """
    if not header:
        return None
    try:
        data = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        found = msgspec.json.decode(data, type=api.AuthConfig | None)
    except (binascii.Error, ValueError, msgspec.DecodeError, msgspec.ValidationError):
        raise InvalidArgument("invalid X-Registry-Auth header: it is no base64 of JSON credentials") from None
    return as_auth(found) if found is not None else None


def as_auth(found: api.AuthConfig) -> RegistryAuth | None:
    """Credentials of the wire as those of the images room; None where there is nothing in them."""
    username, password = found.username, found.password
    if found.auth and not username:
        try:
            username, _, password = base64.b64decode(found.auth).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise InvalidArgument("invalid credentials: auth is no base64 of user:password") from None
    made = RegistryAuth(username, password, found.identitytoken, found.registrytoken)
    return made if any((made.username, made.identity_token, made.registry_token)) else None


async def list_(call: Call) -> web.StreamResponse:
    query = call.query
    return answer(call.engine.images.list(all=boolean(query, "all"), filters=call.filters(),
                                          shared_size=boolean(query, "shared-size"),
                                          manifests=boolean(query, "manifests")))


async def create(call: Call) -> web.StreamResponse:
    """A pull (`fromImage`) or an import (`fromSrc`)."""
    if call.query.get("fromImage"):
        return await _pull(call)
    source = call.query.get("fromSrc", "")
    if source != "-":
        raise InvalidArgument("an import takes the archive in the request (fromSrc=-); fetch it first" if source else
                              "fromImage or fromSrc is needed")
    return await _import(call)


async def _pull(call: Call) -> web.StreamResponse:
    name, tag = call.query["fromImage"], call.query.get("tag", "")
    auth = registry_auth(call.http.headers.get("X-Registry-Auth", ""))
    reference = f"{name}{'@' if tag.startswith('sha256:') else ':'}{tag}" if tag else name
    platform = _platform(call)
    lazy = boolean(call.query, "lazy", call.engine.settings.lazy_pull)

    async def work(tell: Any) -> None:
        await call.engine.images.pull(reference, platform=platform, auth=auth, progress=tell, lazy=lazy)

    return await progress_stream(call, work)


async def convert(call: Call) -> web.StreamResponse:
    """An image once more, in a form that runs before it has arrived."""
    image, target = call.query.get("image", ""), call.query.get("target", "")
    if not image or not target:
        raise InvalidArgument("image and target are needed: the image, and the name that the converted one shall have")
    return answer({"Id": await call.engine.images.convert(image, target)}, 201)


async def _import(call: Call) -> web.StreamResponse:
    query = call.http.query
    repository, tag = query.get("repo", ""), query.get("tag", "")

    async def work(tell: Any) -> None:
        made = await call.engine.images.import_(
            call.upload(), reference=f"{repository}:{tag}" if tag else repository, message=query.get("message", ""),
            changes=query.getall("changes", []), platform=query.get("platform", ""))
        tell(ProgressLine(status=made))

    return await progress_stream(call, work)


async def load(call: Call) -> web.StreamResponse:
    quiet, platform = boolean(call.query, "quiet"), _platform(call)

    async def work(tell: Any) -> None:
        await call.engine.images.load(call.upload(), progress=tell, quiet=quiet, platform=platform)

    return await progress_stream(call, work, always=True)  # as dockerd: clients read its errors in the stream


async def save(call: Call) -> web.StreamResponse:
    names = [call.path["name"]] if "name" in call.path else call.http.query.getall("names", [])
    if not names:
        raise InvalidArgument("names is needed: which images shall be saved")
    return await stream(call, "application/x-tar", call.engine.images.save(names, platform=_platform(call)))


async def inspect(call: Call) -> web.StreamResponse:
    return answer(call.engine.images.inspect(call.path["name"], manifests=boolean(call.query, "manifests"),
                                             platform=_platform(call)))


async def history(call: Call) -> web.StreamResponse:
    return answer(call.engine.images.history(call.path["name"], platform=_platform(call)))


async def push(call: Call) -> web.StreamResponse:
    """An image to its registry; without a tag all tags of the repository."""
    name, tag = call.path["name"], call.query.get("tag", "")
    auth = registry_auth(call.http.headers.get("X-Registry-Auth", ""))
    platform = _platform(call)
    _check_name(name)

    async def work(tell: Any) -> None:
        await call.engine.images.push(name, tag, platform=platform, auth=auth, progress=tell)

    return await progress_stream(call, work)


def _check_name(name: str) -> None:
    """A push names a repository; a tag in it would be taken for part of what is asked for."""
    if parse(name).digest:
        raise InvalidArgument("cannot push a digest reference: name the repository, and the digest as its tag")


async def distribution(call: Call) -> web.StreamResponse:
    auth = registry_auth(call.http.headers.get("X-Registry-Auth", ""))
    return answer(await call.engine.images.distribution(call.path["name"], auth))


async def search(call: Call) -> web.StreamResponse:
    auth = registry_auth(call.http.headers.get("X-Registry-Auth", ""))
    limit = integer(call.query, "limit") or 0
    if not 0 <= limit <= 100:
        raise InvalidArgument(f"Limit {limit} is outside the range of [1, 100]")
    return answer(await call.engine.images.search(call.query.get("term", ""), limit, call.filters(), auth))


def _platform(call: Call) -> str:
    """The platform that is asked for: newer clients write it as JSON, older ones as words."""
    text = call.query.get("platform", "")
    if not text.startswith("{"):
        return text
    try:
        wish = msgspec.json.decode(text, type=api.Platform)
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise InvalidArgument(f"the platform is no JSON of a platform: {text[:100]}") from None
    variant = wish.variant if isinstance(wish.variant, str) else ""
    return "/".join(part for part in (wish.os, wish.architecture, variant) if part)


async def tag(call: Call) -> web.StreamResponse:
    if not call.query.get("repo"):
        raise InvalidArgument("repo is needed: the name that the image shall have")
    await call.engine.images.tag(call.path["name"], call.query["repo"], call.query.get("tag", ""))
    return empty(201)


async def remove(call: Call) -> web.StreamResponse:
    return answer(await call.engine.images.remove(call.path["name"], force=boolean(call.query, "force"),
                                                  prune=not boolean(call.query, "noprune")))


async def prune(call: Call) -> web.StreamResponse:
    return answer(await call.engine.images.prune(call.filters()))


async def check(call: Call) -> web.StreamResponse:
    """Verifies the store; with `repair` mends what is broken. The last line's `aux` is the report (docs/api.md)."""
    auth = registry_auth(call.http.headers.get("X-Registry-Auth", ""))
    repair = boolean(call.query, "repair")

    async def work(tell: Any) -> None:
        report = await call.engine.images.check(repair=repair, auth=auth, progress=tell)
        tell(ProgressLine(aux=api.to_builtins(report)))

    return await progress_stream(call, work)


ROUTES = [
    Route("POST", "/slipway/images/convert", convert),
    Route("GET", "/images/json", list_),
    Route("POST", "/images/create", create, abortable=True, streams=True),
    Route("POST", "/images/load", load, abortable=True, streams=True),
    Route("POST", "/images/prune", prune),
    Route("GET", "/images/get", save, abortable=True),
    Route("GET", "/images/search", search, abortable=True),
    Route("POST", "/images/{name:path}/push", push, abortable=True),
    Route("GET", "/distribution/{name:path}/json", distribution, abortable=True),
    Route("GET", "/images/{name:path}/get", save),
    Route("GET", "/images/{name:path}/json", inspect),
    Route("GET", "/images/{name:path}/history", history),
    Route("POST", "/images/{name:path}/tag", tag),
    Route("DELETE", "/images/{name:path}", remove),
    Route("POST", "/slipway/images/check", check, abortable=True),
]
