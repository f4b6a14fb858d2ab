"""Plug-ins of Docker's protocol: programs of the administrator's that bring volume, network, address or access rules.

``Plugins`` finds and calls them; what their answers mean is known by the rooms that use them.
"""

from backend.plugins.registry import Plugins

__all__ = ["Plugins"]
