"""One file a section of the Engine API: read the request, call the engine, shape the answer."""

from helper.call import Route
from helper.routers import containers, execs, images, networks, slipway_usage, swarm, system, volumes


def routes() -> list[Route]:
    """Every operation that the engine has."""
    return [*containers.ROUTES, *execs.ROUTES, *images.ROUTES, *networks.ROUTES, *volumes.ROUTES, *system.ROUTES,
            *swarm.ROUTES, *slipway_usage.ROUTES]
