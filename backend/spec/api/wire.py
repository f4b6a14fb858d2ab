"""How the wire types are named, decoded and encoded: the rules that all of `backend.spec.api` shares.

Docker's own decoder is Go's: keys match whatever their case, a null leaves a field as it was, unknown keys are ignored
and a wrong type is an error. Clients depend on each of the four, so this module does the same before msgspec checks
the types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from backend.errors import InvalidArgument

__all__ = ["UNSET", "Maybe", "StrSlice", "Wire", "decode", "decode_body", "encode", "field", "to_builtins"]

T = TypeVar("T")
V = TypeVar("V")

#: A field that is left out of the JSON when it has no value (Go's `omitempty`).
Maybe: TypeAlias = V | UnsetType

#: A list of strings that may also be written as one string (Go's strslice: Cmd, Entrypoint, CapAdd, CapDrop).
StrSlice = Annotated[list[str], msgspec.Meta(extra={"str_slice": True})]

_ACRONYMS = {"id": "ID", "ids": "IDs", "ip": "IP", "ips": "IPs", "ipv4": "IPv4", "ipv6": "IPv6", "ipam": "IPAM",
             "uts": "UTS", "rw": "RW", "dns": "Dns", "os": "Os", "io": "IO"}


def go_name(name: str) -> str:
    """The documented JSON key of the attribute *name*: `exec_ids` is `ExecIDs`. Exceptions say `field(name=...)`."""
    return "".join(_ACRONYMS.get(part) or part.capitalize() for part in name.split("_") if part)


class Wire(Struct, kw_only=True, rename=go_name):
    """Base of the types whose keys are written in Go's fashion."""


Clean = Callable[[Any], Any]
_DROP = object()


def encode(value: Any) -> bytes:
    """*value* (a wire type, or lists and dicts of them) as JSON."""
    return msgspec.json.encode(value)


def to_builtins(value: Any) -> Any:
    """*value* as plain dicts, lists and strings, keys as on the wire."""
    return msgspec.to_builtins(value)


def decode(data: bytes | bytearray | memoryview, kind: type[T]) -> T:
    """An answer of an engine as *kind*. The fast path takes JSON that fits as it is; other engines' nulls are cleaned.

    Raises :class:`InvalidArgument` with the path of the field that does not fit.
    """
    try:
        return _decoder(kind).decode(data)  # type: ignore[no-any-return]
    except msgspec.ValidationError:
        return decode_body(data, kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"invalid JSON: {error}") from error


def decode_body(data: bytes | bytearray | memoryview, kind: type[T]) -> T:
    """A request's body as *kind*, by the rules of this module. Raises :class:`InvalidArgument`."""
    if not data:
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"invalid JSON: {error}") from error
    return convert(raw, kind)


def convert(raw: Any, kind: type[T]) -> T:
    """Plain JSON data as *kind*, by the rules of this module. Raises :class:`InvalidArgument`."""
    try:
        cleaned = _cleaner(kind)(raw)
        return msgspec.convert({} if cleaned is _DROP else cleaned, kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid request body: {_path_first(str(error))}") from error
    except RecursionError as error:
        raise InvalidArgument("invalid JSON: nested too deeply") from error


def _path_first(message: str) -> str:
    """`Expected int, got str - at $.HostConfig.Memory` with the field in front, where people look for it."""
    text, found, path = message.replace("`", "").partition(" - at ")
    return f"{path.removeprefix('$.')}: {text[:1].lower()}{text[1:]}" if found else text


_decoders: dict[Any, Any] = {}
_cleaners: dict[Any, Clean] = {}


def _decoder(kind: Any) -> Any:
    if kind not in _decoders:
        _decoders[kind] = msgspec.json.Decoder(kind)
    return _decoders[kind]


def _cleaner(kind: Any) -> Clean:
    from msgspec import inspect

    if kind not in _cleaners:
        _cleaners[kind] = _clean_for(inspect.type_info(kind), {})
    return _cleaners[kind]


def _clean_for(info: Any, known: dict[Any, Clean]) -> Clean:
    """The cleaning function for a type, built once: what it returns drops nulls and folds keys."""
    from msgspec import inspect

    if isinstance(info, inspect.Metadata):
        extra = info.extra or {}
        inner = _clean_for(info.type, known)
        if not extra.get("str_slice"):
            return inner
        return lambda value: inner([value] if isinstance(value, str) else value)
    if isinstance(info, inspect.UnionType):
        rest = [one for one in info.types if not isinstance(one, inspect.NoneType)]
        return _clean_for(rest[0], known) if len(rest) == 1 else _null_only
    if isinstance(info, inspect.StructType):
        return _struct_cleaner(info, known)
    if isinstance(info, inspect.DictType):
        return _dict_cleaner(_clean_for(info.value_type, known), _zero(info.value_type))
    if isinstance(info, inspect.ListType):
        return _list_cleaner(_clean_for(info.item_type, known), _zero(info.item_type))
    return _null_only


def _null_only(value: Any) -> Any:
    return _DROP if value is None else value


def _struct_cleaner(info: Any, known: dict[Any, Clean]) -> Clean:
    if info.cls in known:
        return known[info.cls]
    exact: dict[str, Clean] = {}
    folded: dict[str, str] = {}

    def clean(value: Any) -> Any:
        if not isinstance(value, dict):
            return _null_only(value)
        out: dict[str, Any] = {}
        for key, item in value.items():
            name = key if key in exact else folded.get(key.lower(), "")
            if name and item is not None:
                cleaned = exact[name](item)
                if cleaned is not _DROP:
                    out[name] = cleaned
        return out

    known[info.cls] = clean
    for one in info.fields:
        exact[one.encode_name] = _clean_for(one.type, known)
        folded.setdefault(one.encode_name.lower(), one.encode_name)
    return clean


def _dict_cleaner(inner: Clean, zero: Any) -> Clean:
    def clean(value: Any) -> Any:
        if not isinstance(value, dict):
            return _null_only(value)
        return {key: zero() if item is None else inner(item) for key, item in value.items()}
    return clean


def _list_cleaner(inner: Clean, zero: Any) -> Clean:
    def clean(value: Any) -> Any:
        if not isinstance(value, list):
            return _null_only(value)
        return [zero() if item is None else inner(item) for item in value]
    return clean


def _zero(info: Any) -> Callable[[], Any]:
    """What a null means inside a list or map: Go's zero value of the element."""
    from msgspec import inspect

    kinds: tuple[tuple[Any, Callable[[], Any]], ...] = (
        (inspect.ListType, list), (inspect.DictType, dict), (inspect.StructType, dict), (inspect.StrType, str),
        (inspect.IntType, int), (inspect.BoolType, bool))
    return next((make for kind, make in kinds if isinstance(info, kind)), lambda: None)
