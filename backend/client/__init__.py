"""The Engine API, as the user: an asynchronous client for the helper's socket, or any other Docker engine's.

    async with Client("/run/slipway/slipway.sock") as engine:
        for container in await engine.list_containers(all=True):
            ...

Methods are named as the API's operations. What an engine refuses is raised as a kind of :mod:`backend.errors`; an
engine that cannot be reached is :class:`~backend.errors.Unavailable`, a socket that may not be opened
:class:`~backend.errors.Forbidden`, both with a text that says what to do.
"""

from backend.client.client import Client, Progress
from backend.client.connection import Connection
from backend.client.hijack import Stream
from backend.client.volume_files import VolumeFiles

__all__ = ["Client", "Connection", "Progress", "Stream", "VolumeFiles"]
