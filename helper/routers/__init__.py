"""One file a section of the Engine API: read the request, call the engine, shape the answer."""

from helper.call import Route
from helper.routers import (
    containers,
    execs,
    files,
    images,
    networks,
    plugins,
    slipway_images,
    slipway_usage,
    slipway_volumes,
    swarm,
    system,
    trust,
    volumes,
)

_SECTIONS = (containers, execs, files, images, networks, plugins, volumes, system, swarm, slipway_images,
             slipway_usage, slipway_volumes, trust)


def routes() -> list[Route]:
    """Every operation that the engine has."""
    return [route for section in _SECTIONS for route in section.ROUTES]
