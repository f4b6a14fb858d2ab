"""`slipway trust`: sign images, look at their signatures, and say which images may run.

The private key stays in this process: the engine gets the signature and puts it into the registry.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from app.cli.errors import Failure, Usage
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Engine
from app.cli.output import table

POLICY = "/etc/slipway/policy.json"
_FILE = Flag("file", "text", default=POLICY, about=f"the policy file ({POLICY})")
_PARSERS = {
    "key generate": Parser(
        "trust key generate [PREFIX]", "Make a key pair: PREFIX.key (encrypted, as cosign) and PREFIX.pub.", most=1),
    "key public": Parser("trust key public KEY", "Print the public half of a private key.", least=1, most=1),
    "sign": Parser(
        "trust sign --key KEY [FLAGS] IMAGE", "Sign an image as it is in its registry.",
        Flag("key", "text", short="k", about="the private key"),
        Flag("annotation", "list", short="a", about="NAME=VALUE to be signed with it"),
        Flag("bundle", about="in cosign 3's form: a bundle that refers to the image, not the tag sha256-….sig"),
        least=1, most=1),
    "inspect": Parser(
        "trust inspect [FLAGS] IMAGE", "Show the signatures that an image has in its registry, and whose they are.",
        Flag("key", "list", short="k", about="a public key to try; without one, those of the policy"),
        Flag("json", about="as JSON"), least=1, most=1),
    "policy show": Parser("trust policy [show]", "Show the policy as the engine reads it.", most=0),
    "policy check": Parser("trust policy check IMAGE", "Say whether an image that is here may run; 1 = no.",
                           least=1, most=1),
    "policy set": Parser(
        "trust policy set [FLAGS] SCOPE accept|reject|KEY.pub...", "Write a rule: SCOPE is a registry, a namespace, a "
        "repository, an image with its tag, *.domain, or `default`.", _FILE, least=2),
    "policy unset": Parser("trust policy unset [FLAGS] SCOPE", "Take a rule away.", _FILE, least=1, most=1),
}


def main(words: list[str], address: str) -> int:
    """Runs `trust VERB ...`."""
    rest = words[1:]
    if rest == ["policy"]:
        rest = ["policy", "show"]
    for length in (2, 1):
        verb = " ".join(rest[:length])
        if verb in _PARSERS:
            return _VERBS[verb](Engine(address), _PARSERS[verb].parse(rest[length:]))
    width = max(map(len, _PARSERS))
    shown = "\n".join(f"  {verb:<{width}}  {parser.about}" for verb, parser in _PARSERS.items())
    print(f"usage: slipway trust VERB ...\n\n{shown}")
    if rest and rest[0] not in ("-h", "--help", "help"):
        raise Usage(f"trust has no verb {rest[0]!r}.")
    return 0


# --- keys -------------------------------------------------------------------------------------------------------------

def _protect() -> None:
    from backend.credentials.undumpable import protect_memory

    protect_memory()


def _generate(engine: Engine, given: Options) -> int:
    from app import signing_keys

    _protect()
    private, public = signing_keys.generate(given.words[0] if given.words else "slipway")
    print(f"{private}\n{public}")
    return 0


def _public(engine: Engine, given: Options) -> int:
    from app import signing_keys

    _protect()
    print(signing_keys.public_pem(signing_keys.load(given.words[0])).decode(), end="")
    return 0


# --- signatures -------------------------------------------------------------------------------------------------------

def _auth(image: str) -> dict[str, str]:
    import asyncio

    from backend.credentials import header_for
    from backend.errors import EngineError

    try:
        header = asyncio.run(header_for(image))
    except EngineError as error:
        raise Failure(error.message) from None
    return {"X-Registry-Auth": header} if header else {}


def _found(engine: Engine, image: str, auth: dict[str, str]) -> dict[str, Any]:
    answer = engine.ask("GET", "/slipway/trust/signatures", {"reference": image}, headers=auth)
    found: dict[str, Any] = json.loads(answer.read())
    return found


def _sign(engine: Engine, given: Options) -> int:
    from app import signing_keys
    from backend.spec import cosign
    from backend.spec.reference import HUB, parse

    if not given.key:
        raise Usage("--key is needed: the private key that signs (`slipway trust key generate` makes one).")
    _protect()
    image = given.words[0]
    auth = _auth(image)
    digest = _found(engine, image, auth)["digest"]
    reference = parse(image)
    # The name that cosign and containers-policy give Docker Hub in a signature.
    repository = reference.repository.replace(f"{HUB}/", f"index.{HUB}/", 1) if reference.registry == HUB else (
        reference.repository)
    key, annotations, signature = signing_keys.load(given.key), _annotations(given.annotation), b""
    if given.bundle:
        payload = cosign.sign_bundle(key, digest, annotations)
    else:
        payload = cosign.simple_payload(repository, digest, annotations)
        signature = cosign.sign(key, payload)
    body = {"form": "bundle" if given.bundle else "simple", "payload": base64.b64encode(payload).decode(),
            "signature": base64.b64encode(signature).decode()}
    engine.ask("POST", "/slipway/trust/signatures", {"reference": image}, body, headers=auth).read()
    print(f"{reference.familiar_name}@{digest}")
    return 0


def _annotations(given: list[str]) -> dict[str, str]:
    pairs = [one.partition("=") for one in given]
    if not all(equals and name for name, equals, _ in pairs):
        raise Usage("--annotation is written as NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def _inspect(engine: Engine, given: Options) -> int:
    found = _found(engine, given.words[0], _auth(given.words[0]))
    if given.key:
        for row in found["signatures"]:
            row["keys"] = _made_by(row, found["digest"], given.key)
    if given.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    print(f"{found['reference']} is {found['digest']}")
    rows = [[row["form"], row["reference"] or "-", "yes" if row["digest"] == found["digest"] else row["digest"],
             ", ".join(os.path.basename(key) for key in row["keys"]) or "unknown"] for row in found["signatures"]]
    print(table(["FORM", "REPOSITORY", "THIS IMAGE", "SIGNED BY"], rows) if rows else "It has no signatures.")
    return 0


def _made_by(row: dict[str, Any], digest: str, paths: list[str]) -> list[str]:
    from backend.errors import InvalidArgument
    from backend.spec import cosign

    good = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                pem = file.read(1 << 16)
            cosign.check_public_key(pem)
            signature = cosign.again(row["form"], base64.b64decode(row["payload"]), base64.b64decode(row["signature"]))
        except OSError as error:
            raise Failure(f"the key {path} cannot be read: {error.strerror}.") from None
        except InvalidArgument as error:
            raise Failure(f"the key {path} cannot be used: {error.message}.") from None
        if signature.digest == digest and cosign.made_by(pem, signature):
            good.append(path)
    return good


# --- the policy -------------------------------------------------------------------------------------------------------

def _show(engine: Engine, given: Options) -> int:
    found = engine.json("GET", "/slipway/trust/policy")
    if not found["present"]:
        print(f"There is no policy file ({found['path']}): every image may run.")
        return 0
    rows = [[scope, _words(one)] for scope, one in (("default", found["default"]), *sorted(found["scopes"].items()))]
    print(f"Policy: {found['path']}")
    print(table(["SCOPE", "MAY RUN"], rows))
    return 0


def _words(requirements: list[dict[str, Any]]) -> str:
    out = []
    for one in requirements:
        if one["kind"] == "signed":
            keys = " or ".join(key["name"] for key in one["keys"])
            out.append(f"if signed by {keys}" + (f" for {one['identity']}" if one["identity"] else ""))
        else:
            out.append({"accept": "always", "reject": "never"}[one["kind"]])
    return " and ".join(out)


def _check(engine: Engine, given: Options) -> int:
    found = engine.json("GET", "/slipway/trust/verdict", {"image": given.words[0]})
    print(f"{given.words[0]} may run" if found["allowed"] else found["reason"])
    return 0 if found["allowed"] else 1


def _document(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {"default": [{"type": "insecureAcceptAnything"}]}
    except (OSError, ValueError) as error:
        raise Failure(f"{path} cannot be read: {error}. Repair it by hand.") from None
    if not isinstance(found, dict):
        raise Failure(f"{path} is no JSON object. Repair it by hand.")
    return found


def _write(path: str, document: dict[str, Any]) -> None:
    """Checked as the engine will check it, then replaced at once, readable for all."""
    from backend.errors import InvalidArgument
    from backend.spec.policy import read_policy

    text = json.dumps(document, indent=4).encode() + b"\n"
    try:
        read_policy(text, _key_data)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "xb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
    except InvalidArgument as error:
        raise Failure(f"that would be no policy: {error.message}.") from None
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}. It is the administrator's: use sudo.") from None


def _key_data(path: str) -> bytes:
    from backend.errors import InvalidArgument

    try:
        with open(path, "rb") as file:
            return file.read(1 << 16)
    except OSError as error:
        raise InvalidArgument(f"the key {path} cannot be read: {error.strerror}") from None


def _take_in(path: str, folder: str) -> str:
    """A copy of the public key beside the policy: in its owner's folder it could be replaced, or vanish."""
    from backend.errors import InvalidArgument
    from backend.spec.cosign import check_public_key

    target = os.path.join(folder, os.path.basename(path))
    try:
        pem = _key_data(path)
        check_public_key(pem)
    except InvalidArgument as error:
        raise Failure(f"{path}: {error.message}.") from None
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        if os.path.exists(target):
            if _key_data(target) != pem:
                raise Failure(f"{target} is another key already; give this one's file another name.")
            return target
        with open(target, "xb") as file:
            file.write(pem)
    except OSError as error:
        raise Failure(f"{target} cannot be written: {error.strerror}. It is the administrator's: use sudo.") from None
    os.chmod(target, 0o644)
    return target


def _set(engine: Engine, given: Options) -> int:
    scope, *wish = given.words
    kinds = {"accept": "insecureAcceptAnything", "reject": "reject"}
    rule: list[dict[str, Any]]
    if len(wish) == 1 and wish[0] in kinds:
        rule = [{"type": kinds[wish[0]]}]
    else:
        paths = [_take_in(path, os.path.join(os.path.dirname(os.path.abspath(given.file)), "keys")) for path in wish]
        rule = [{"type": "sigstoreSigned", "keyPaths": paths, "signedIdentity": {"type": "matchRepository"}}]
    document = _document(given.file)
    if scope == "default":
        document["default"] = rule
    else:
        document.setdefault("transports", {}).setdefault("docker", {})[scope] = rule
    _write(given.file, document)
    print(f"{scope}: {wish[0] if rule[0]['type'] != 'sigstoreSigned' else 'signed by ' + ', '.join(wish)}")
    return 0


def _unset(engine: Engine, given: Options) -> int:
    document = _document(given.file)
    scopes = document.get("transports", {}).get("docker", {})
    if given.words[0] not in scopes:
        raise Failure(f"{given.file} has no rule for {given.words[0]}.")
    del scopes[given.words[0]]
    _write(given.file, document)
    print(given.words[0], file=sys.stdout)
    return 0


_VERBS: dict[str, Callable[[Engine, Options], int]] = {
    "key generate": _generate, "key public": _public, "sign": _sign, "inspect": _inspect, "policy show": _show,
    "policy check": _check, "policy set": _set, "policy unset": _unset}
