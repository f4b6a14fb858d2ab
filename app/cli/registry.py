"""`slipway registry`: a private registry in a container, with a volume, TLS and users.

What it needs is made here, as the user: the image from this machine's docker-registry, certificates, the password file.
The engine gets a container that runs as this user, without capabilities and with a read-only root.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from app.cli.errors import Failure, Refused, Usage
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Engine, quote
from app.cli.output import table
from app.own_registry import image
from app.own_registry.files import Files, folder_of

LABEL, SETTINGS = "io.slipway.registry", "io.slipway.registry.settings"
#: Where the engine looks for roots (certs.d); a variable for engines that were told another folder.
CERTS_FOLDER = "SLIPWAY_CERTS_D"
_CERTS_DEFAULT = "/etc/slipway/certs.d"
_DEFAULT = "registry"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PATIENCE = 20.0    # seconds until it must answer

_PARSERS = {
    "run": Parser(
        "registry run [FLAGS] [NAME]", "Run a private registry, or bring it to what the flags say. Its data stay in a "
        "volume.",
        Flag("port", "number", short="p", default=5000, about="the port that it is published on (5000)"),
        Flag("bind", "text", default="127.0.0.1", about="the address that it listens on; 0.0.0.0 = all (127.0.0.1)"),
        Flag("host-name", "list", about="a name or address by which others reach it, for its certificate"),
        Flag("user", "list", short="u", about="let this user in; asks for a password"),
        Flag("password-stdin", about="read the password from the standard input"),
        Flag("anonymous", about="let everybody in who reaches it, although it is not on loopback"),
        Flag("plain-http", about="no TLS; on loopback only"),
        Flag("image", "text", about="run this image instead of one made of this machine's docker-registry"), most=1),
    "stop": Parser("registry stop [NAME]", "Stop a registry; `run` starts it again.", most=1),
    "rm": Parser("registry rm [FLAGS] [NAME]", "Remove a registry's container.",
                 Flag("data", about="its volume too, with every image in it"), most=1),
    "status": Parser("registry status [NAME]", "Show registries: address, users, certificate, volume.", most=1),
    "user": Parser("registry user [FLAGS] USER [NAME]", "Let a user in, change the password, or (--remove) no longer.",
                   Flag("password-stdin", about="read the password from the standard input"),
                   Flag("remove", about="take the user away"), least=1, most=2),
    "ca": Parser("registry ca [NAME]", "Print the root certificate, for the certs.d of other machines.", most=1),
}


def main(words: list[str], address: str) -> int:
    """Runs `registry VERB ...`."""
    if len(words) < 2 or words[1] not in _PARSERS:
        shown = "\n".join(f"  {verb:<8} {parser.about}" for verb, parser in _PARSERS.items())
        print(f"usage: slipway registry VERB [FLAGS] [NAME]\n\n{shown}")
        if len(words) > 1 and words[1] not in ("-h", "--help", "help"):
            raise Usage(f"registry has no verb {words[1]!r}.")
        return 0
    given = _PARSERS[words[1]].parse(words[2:])
    return _VERBS[words[1]](Engine(address), given)


def _name(given: Options, at: int = 0) -> str:
    return given.words[at] if len(given.words) > at else _DEFAULT


def _container(name: str) -> str:
    return f"slipway-registry-{name}"


def _find(engine: Engine, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = engine.json("GET", f"/containers/{quote(_container(name))}/json")
    except Refused as refused:
        if refused.status == 404:
            return None
        raise
    if (found["Config"].get("Labels") or {}).get(LABEL) != name:
        raise Failure(f"the container {_container(name)} is there and is no registry of ours. Rename or remove it, or "
                      "give the registry another name.")
    return found


def _must_find(engine: Engine, name: str) -> dict[str, Any]:
    found = _find(engine, name)
    if found is None:
        raise Failure(f"there is no registry {name}. `slipway registry run {name}` makes it.")
    return found


# --- run --------------------------------------------------------------------------------------------------------------

def _check(given: Options, files: Files) -> None:
    """Refuses what would be open to a network by mistake."""
    if given.bind in _LOOPBACK:
        return
    if given.plain_http:
        raise Usage("--plain-http is for loopback only: passwords and images would be readable on the network.")
    if not (given.user or files.users() or given.anonymous):
        raise Usage(f"on {given.bind} everybody could push. Add --user NAME, or say --anonymous if that is meant.")


def _password(user: str, *, stdin: bool) -> str:
    if stdin:
        return sys.stdin.readline().rstrip("\n")
    if not sys.stdin.isatty():
        raise Failure(f"the password of {user} is needed: give it with --password-stdin.")
    first = getpass.getpass(f"Password of {user}: ")
    if first != getpass.getpass("Once more: "):
        raise Failure("the two passwords are not the same; nothing was changed.")
    return first


def _names(given: Options) -> list[str]:
    """By which it can be reached, the best first."""
    own = [] if given.bind in _LOOPBACK else [socket.gethostname()]
    literal = [] if given.bind in ("0.0.0.0", "::", *_LOOPBACK) else [given.bind]
    return list(dict.fromkeys([*given.host_name, *own, *literal, "localhost", "127.0.0.1"]))


def _run(engine: Engine, given: Options) -> int:
    from backend.credentials.undumpable import protect_memory

    protect_memory()
    name = _name(given)
    files = Files(folder_of(name))
    _check(given, files)
    if given.password_stdin and len(given.user) != 1:
        raise Usage("--password-stdin is the password of one --user.")
    for user in given.user:
        files.set_user(user, _password(user, stdin=given.password_stdin))
    os.makedirs(files.serve, mode=0o700, exist_ok=True)
    names = _names(given)
    if not given.plain_http:
        files.make_certificates(name, names)
    body = _body(name, given, files, _image(engine, given))
    _bring_up(engine, name, body)
    _wait_until_it_answers(engine, name, given, files)
    _say_how(name, given, files, names)
    return 0


def _image(engine: Engine, given: Options) -> str:
    """The image to run, made if it is not there."""
    if given.image:
        return str(given.image)
    tar = image.root_tar(image.find_program())
    wanted = f"{image.REPOSITORY}:{image.tag_of(tar)}"
    try:
        engine.json("GET", f"/images/{quote(wanted)}/json")
    except Refused as refused:
        if refused.status != 404:
            raise
        print("Making the image from this machine's docker-registry", file=sys.stderr)
        query = {"fromSrc": "-", "repo": image.REPOSITORY, "tag": image.tag_of(tar), "changes": image.CHANGES}
        pieces = (tar[at:at + (1 << 20)] for at in range(0, len(tar), 1 << 20))
        for line in engine.ask("POST", "/images/create", query, source=pieces).lines():
            if "error" in line:
                raise Failure(f"the image could not be made: {line['error']}") from None
    return wanted


def _environment(given: Options, files: Files) -> list[str]:
    out = []
    if not given.plain_http:
        out += [f"REGISTRY_HTTP_TLS_CERTIFICATE={image.SECRETS}/cert.pem",
                f"REGISTRY_HTTP_TLS_KEY={image.SECRETS}/key.pem"]
    if files.users():
        out += ["REGISTRY_AUTH=htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM=Slipway registry",
                f"REGISTRY_AUTH_HTPASSWD_PATH={image.SECRETS}/htpasswd"]
    return out


def _body(name: str, given: Options, files: Files, wanted: str) -> dict[str, Any]:
    port = f"{image.PORT}/tcp"
    settings = {"image": wanted, "bind": given.bind, "port": given.port, "env": _environment(given, files),
                "serve": files.serve, "user": f"{os.getuid()}:{os.getgid()}"}
    # A renewed certificate is read at the start only: its fingerprint is part of what the container is.
    certificate = files.certificate() if not given.plain_http else b""
    if certificate:
        from app.own_registry.certificates import fingerprint

        settings["certificate"] = fingerprint(certificate)
    return {
        "Image": wanted, "User": settings["user"], "Env": settings["env"], "ExposedPorts": {port: {}},
        "Labels": {LABEL: name, SETTINGS: json.dumps(settings, sort_keys=True)},
        "HostConfig": {
            "PortBindings": {port: [{"HostIp": given.bind.replace("localhost", "127.0.0.1"),
                                     "HostPort": str(given.port)}]},
            "RestartPolicy": {"Name": "unless-stopped"}, "CapDrop": ["ALL"], "ReadonlyRootfs": True,
            # It is this user, who owns what it reads; with IDs of its own it would be a stranger to these files.
            "UsernsMode": "host",
            "SecurityOpt": ["no-new-privileges"],
            "Mounts": [{"Type": "volume", "Source": _container(name), "Target": image.DATA},
                       {"Type": "bind", "Source": files.serve, "Target": image.SECRETS, "ReadOnly": True}]}}


def _bring_up(engine: Engine, name: str, body: dict[str, Any]) -> None:
    """Starts the container; one that was made from other settings is made anew, its volume stays."""
    at = f"/containers/{quote(_container(name))}"
    found = _find(engine, name)
    if found is not None and found["Config"]["Labels"].get(SETTINGS) != body["Labels"][SETTINGS]:
        engine.ask("DELETE", at, {"force": True}).read()
        found = None
    if found is None:
        engine.json("POST", "/containers/create", {"name": _container(name)}, body)
    engine.ask("POST", f"{at}/start").read()


def _wait_until_it_answers(engine: Engine, name: str, given: Options, files: Files) -> None:
    import http.client
    import ssl

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(given.bind, given.bind)
    deadline, why = time.monotonic() + _PATIENCE, "it does not answer"
    while time.monotonic() < deadline:
        if not _must_find(engine, name)["State"]["Running"]:
            break
        connection = http.client.HTTPConnection(host, given.port, timeout=5)
        try:
            if not given.plain_http:
                raw = socket.create_connection((host, given.port), 5)
                context = ssl.create_default_context(cafile=files.root)
                connection.sock = context.wrap_socket(raw, server_hostname="localhost")
            connection.request("GET", "/v2/")
            status = connection.getresponse().status
            if status in (200, 401):
                return
            why = f"it answers {status}"
        except (OSError, http.client.HTTPException) as error:
            why = str(error)
        finally:
            connection.close()
        time.sleep(0.1)
    said = _last_words(engine, name)
    raise Failure(f"the registry {name} was started and does not serve ({why}). Its last words:\n{said}")


def _last_words(engine: Engine, name: str) -> str:
    answer = engine.ask("GET", f"/containers/{quote(_container(name))}/logs", {"stdout": 1, "stderr": 1, "tail": 5})
    return b"".join(data for _, data in answer.frames()).decode(errors="replace").rstrip()


def _say_how(name: str, given: Options, files: Files, names: list[str]) -> None:
    place = f"{names[0]}:{given.port}"
    print(f"The registry {name} serves at {'http' if given.plain_http else 'https'}://{place}, its images are in the "
          f"volume {_container(name)}.")
    if files.users():
        print(f"Sign in:  slipway login {place}   (or docker login {place})")
    print(f"Push:     docker tag IMAGE {place}/IMAGE && docker push {place}/IMAGE")
    if not given.plain_http:
        _install_root(files, [f"{one}:{given.port}" for one in names])


def _install_root(files: Files, places: list[str]) -> None:
    """Puts the root where the engine looks for it, or says how root does it."""
    folder = os.environ.get(CERTS_FOLDER, _CERTS_DEFAULT)
    with open(files.root, "rb") as file:
        root = file.read()
    missing = []
    for place in places:
        at = os.path.join(folder, place, "ca.crt")
        try:
            os.makedirs(os.path.dirname(at), mode=0o755, exist_ok=True)
            with open(at, "wb") as file:
                file.write(root)
        except OSError:
            missing.append(at)
    if missing:
        print("To let the engine know its certificate, run once:")
        for at in missing:
            print(f"  sudo install -D -m 644 {files.root} {at}")
    print(f"On other machines, put the output of `slipway registry ca` to /etc/docker/certs.d/{places[0]}/ca.crt (or "
          f"{_CERTS_DEFAULT}/...).")


# --- the other verbs --------------------------------------------------------------------------------------------------

def _stop(engine: Engine, given: Options) -> int:
    name = _name(given)
    _must_find(engine, name)
    engine.ask("POST", f"/containers/{quote(_container(name))}/stop").read()
    print(name)
    return 0


def _rm(engine: Engine, given: Options) -> int:
    name = _name(given)
    _must_find(engine, name)
    engine.ask("DELETE", f"/containers/{quote(_container(name))}", {"force": True}).read()
    if given.data:
        engine.ask("DELETE", f"/volumes/{quote(_container(name))}").read()
    print(name)
    return 0


def _status(engine: Engine, given: Options) -> int:
    rows = engine.json("GET", "/containers/json", {"all": True, "filters": {"label": [LABEL]}})
    if given.words:
        rows = [row for row in rows if row["Labels"][LABEL] == given.words[0]]
        if not rows:
            _must_find(engine, given.words[0])
    print(table(["NAME", "STATUS", "ADDRESS", "USERS", "CERTIFICATE", "VOLUME"], [_row(row) for row in rows]))
    return 0


def _row(row: dict[str, Any]) -> list[str]:
    name = row["Labels"][LABEL]
    settings = json.loads(row["Labels"].get(SETTINGS, "{}"))
    files = Files(os.path.dirname(settings.get("serve", folder_of(name) + "/serve")))
    until = "none (http)"
    if "certificate" in settings:
        from app.own_registry.certificates import expiry

        until = f"until {expiry(files.certificate()):%Y-%m-%d}" if files.certificate() else "unknown"
    return [name, row["Status"] or row["State"], f"{settings.get('bind', '?')}:{settings.get('port', '?')}",
            ", ".join(files.users()) or "everybody", until, _container(name)]


def _user(engine: Engine, given: Options) -> int:
    from backend.credentials.undumpable import protect_memory

    protect_memory()
    user, name = given.words[0], _name(given, 1)
    files = Files(folder_of(name))
    before = bool(files.users())
    files.set_user(user, None if given.remove else _password(user, stdin=given.password_stdin))
    print(user)
    if before != bool(files.users()) and _find(engine, name) is not None:
        print(f"slipway: the registry {name} must be told that there are {'users' if not before else 'no users'} now: "
              "run `slipway registry run` with its flags again.", file=sys.stderr)
    return 0


def _ca(engine: Engine, given: Options) -> int:
    files = Files(folder_of(_name(given)))
    try:
        with open(files.root) as file:
            print(file.read(), end="")
    except FileNotFoundError:
        raise Failure(f"the registry {_name(given)} has no certificate of its own.") from None
    return 0


_VERBS: dict[str, Callable[[Engine, Options], int]] = {
    "run": _run, "stop": _stop, "rm": _rm, "status": _status, "user": _user, "ca": _ca}
