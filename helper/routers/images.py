"""Images: lists, pulls, archives, names, removal."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from backend.errors import InvalidArgument
from backend.images.types import ProgressLine, RegistryAuth
from backend.spec import api
from helper import web
from helper.call import Call, Route, answer, empty, progress_stream, stream
from helper.params import boolean


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
    return answer(call.engine.images.list(all=boolean(call.query, "all"), filters=call.filters(),
                                          shared_size=boolean(call.query, "shared-size")))


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
    platform = call.query.get("platform", "")

    async def work(tell: Any) -> None:
        await call.engine.images.pull(reference, platform=platform, auth=auth, progress=tell)

    return await progress_stream(call, work)


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
    quiet = boolean(call.query, "quiet")

    async def work(tell: Any) -> None:
        await call.engine.images.load(call.upload(), progress=tell, quiet=quiet)

    return await progress_stream(call, work)


async def save(call: Call) -> web.StreamResponse:
    names = [call.path["name"]] if "name" in call.path else call.http.query.getall("names", [])
    if not names:
        raise InvalidArgument("names is needed: which images shall be saved")
    return await stream(call, "application/x-tar", call.engine.images.save(names))


async def inspect(call: Call) -> web.StreamResponse:
    return answer(call.engine.images.inspect(call.path["name"]))


async def history(call: Call) -> web.StreamResponse:
    return answer(call.engine.images.history(call.path["name"]))


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


ROUTES = [
    Route("GET", "/images/json", list_),
    Route("POST", "/images/create", create, abortable=True),
    Route("POST", "/images/load", load, abortable=True),
    Route("POST", "/images/prune", prune),
    Route("GET", "/images/get", save),
    Route("GET", "/images/{name:path}/get", save),
    Route("GET", "/images/{name:path}/json", inspect),
    Route("GET", "/images/{name:path}/history", history),
    Route("POST", "/images/{name:path}/tag", tag),
    Route("DELETE", "/images/{name:path}", remove),
]
