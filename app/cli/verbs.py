"""The verbs: name -> (module, what it does). A module is imported when its verb is called.

A module has ``main(words, address) -> int``; *words* begin with the verb, *address* is the engine's.
"""

from __future__ import annotations

VERBS: dict[str, tuple[str, str]] = {
    "run": ("app.cli.run", "create a container from an image and start it"),
    "create": ("app.cli.run", "create a container, without starting it"),
    "ps": ("app.cli.ps", "list containers"),
    "start": ("app.cli.life", "start containers"),
    "stop": ("app.cli.life", "stop containers"),
    "restart": ("app.cli.life", "restart containers"),
    "kill": ("app.cli.life", "send a signal to containers"),
    "pause": ("app.cli.life", "freeze containers"),
    "unpause": ("app.cli.life", "let frozen containers go on"),
    "rm": ("app.cli.life", "remove containers"),
    "rename": ("app.cli.life", "give a container another name"),
    "wait": ("app.cli.life", "wait until containers stop; print their exit codes"),
    "exec": ("app.cli.exec", "run a program in a running container"),
    "attach": ("app.cli.attach", "connect the terminal to a running container"),
    "logs": ("app.cli.logs", "show what a container printed"),
    "inspect": ("app.cli.inspect", "show everything about containers, images, networks or volumes"),
    "top": ("app.cli.top", "show the processes of a container"),
    "stats": ("app.cli.top", "show what containers use"),
    "port": ("app.cli.ps", "show the published ports of a container"),
    "images": ("app.cli.images", "list images"),
    "pull": ("app.cli.pull", "fetch an image from a registry"),
    "tag": ("app.cli.images", "give an image another name"),
    "rmi": ("app.cli.images", "remove images"),
    "history": ("app.cli.images", "show the layers of an image"),
    "save": ("app.cli.archive", "write images into a tar"),
    "load": ("app.cli.archive", "read images from a tar"),
    "import": ("app.cli.archive", "make an image from the tar of a root file system"),
    "network": ("app.cli.network", "networks: ls, create, rm, inspect, connect, disconnect"),
    "volume": ("app.cli.volume", "volumes: ls, create, rm, inspect"),
    "login": ("app.cli.login", "sign in to a registry; the password goes into the keyring"),
    "logout": ("app.cli.login", "sign out of a registry"),
    "registry": ("app.cli.registry", "a private registry of one's own: run, stop, status, user, ca, rm"),
    "events": ("app.cli.system", "show what happens, as it happens"),
    "version": ("app.cli.system", "show the versions of this program and of the engine"),
    "info": ("app.cli.system", "show the engine's state and settings"),
    "up": ("app.cli.compose", "start the stack of a Compose file"),
    "down": ("app.cli.compose", "stop and remove a stack"),
    "stack": ("app.cli.compose", "stacks: ls, ps, plan, start, stop, restart, logs"),
}
