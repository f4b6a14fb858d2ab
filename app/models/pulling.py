"""Pulls and runs as operations: a pull layer by layer, and the walk from image to container."""

from __future__ import annotations

from app.models.operations import Operation
from app.models.run_request import RunRequest
from app.models.streams import reading
from backend.client import Client
from backend.errors import EngineError, NotFound
from backend.spec.reference import Reference, parse

_PUSHED = frozenset({"Pushed", "Layer already exists"})
_FINISHED = frozenset({"Pull complete", "Already exists", "Download complete"})


def with_tag(reference: str) -> str:
    """*reference* with `:latest` when it says nothing else: without a tag the engine would pull all of them."""
    return parse(reference.strip()).with_default_tag().familiar


async def pull(client: Client, reference: str, operation: Operation) -> None:
    """Pull *reference* with the credentials that belong to its registry, telling *operation* how far it is."""
    reference = with_tag(reference)
    operation.report(f"Asking for {reference}")
    auth = await credentials_for(reference)
    sizes: dict[str, int] = {}
    async with reading(client.pull_image(reference, auth=auth)) as lines:
        async for line in lines:
            if not line.id or line.id == reference.rsplit(":", 1)[-1]:
                operation.say(str(line))
                operation.report(line.status)
                continue
            if line.total and line.status == "Downloading":
                sizes[line.id] = line.total
            size = sizes.get(line.id, 0)
            done = size if line.status in _FINISHED or line.status == "Extracting" else min(line.current, size)
            operation.layer(line.id, line.status, done, size)
            ready = sum(status in ("Pull complete", "Already exists") for status, _, _ in operation.layers.values())
            operation.report(f"{ready} of {len(operation.layers)} layers ready")


async def push(client: Client, meant: Reference, operation: Operation) -> None:
    """Push *meant* (with its tag) with the credentials for its registry, telling *operation* how far it is."""
    operation.report(f"Asking {meant.registry}")
    auth = await credentials_for(meant.familiar)
    sizes: dict[str, int] = {}
    async with reading(client.push_image(meant.familiar_name, meant.tag, auth=auth)) as lines:
        async for line in lines:
            if not line.id:
                operation.say(str(line))
                operation.report(line.status)
                continue
            sizes[line.id] = max(line.total, sizes.get(line.id, 0))
            size = sizes[line.id]
            done = size if line.status in _PUSHED or line.status.startswith("Mounted") else min(line.current, size)
            operation.layer(line.id, line.status, done, size)
            ready = sum(status in _PUSHED or status.startswith("Mounted") for status, _, _ in operation.layers.values())
            operation.report(f"{ready} of {len(operation.layers)} layers there")


async def run(client: Client, request: RunRequest, operation: Operation) -> str:
    """Create and start what *request* asks for; the image is pulled when it is missing. The container's ID."""
    request.check()
    body = request.body()
    body.image = with_tag(body.image) if not body.image.startswith("sha256:") else body.image
    try:
        await client.inspect_image(body.image)
    except NotFound:
        await pull(client, body.image, operation)
    operation.report("Creating the container")
    made = await client.create_container(body, name=request.name.strip())
    operation.report("Starting it")
    try:
        await client.start_container(made.id)
    except EngineError:
        # What never ran is of no use to anybody, and its name would be in the way of the next attempt.
        await client.remove_container(made.id, force=True)
        raise
    return made.id


async def credentials_for(reference: str) -> str:
    """The X-Registry-Auth header for *reference*; "" when nobody has signed in to its registry."""
    from backend import credentials

    return await credentials.header_for(reference)
