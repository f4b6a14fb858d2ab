"""Slipway's libraries: two wings on one shared floor.

* The **engine wing** (``engine``, ``runtime``, ``images``, ``network``, ``volumes``) runs inside the privileged helper.
* The **user wing** (``client``, ``compose``, ``credentials``) runs with the user's rights and reaches the engine only
  through the Engine API.
* The **shared floor** (``errors``, ``spec``, ``streams``, ``dockerignore``, ``logs``) is plain data and pure code.

The wings never import each other; ``tests/rules`` enforces it.
"""
