"""Several Compose files as one, by Compose's override rules. Pure.

Mappings merge key by key, single values are replaced, lists are appended. The exceptions are in the tables below.
`!reset` takes a value away, `!override` replaces it whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from backend.compose.errors import ComposeError
from backend.compose.nodes import Mapping, Node, Scalar, Sequence, as_text
from backend.compose.values import parse_device, parse_ports, parse_volume

Path = tuple[str, ...]

# A later value replaces an earlier one whole, lists too.
_REPLACED = {("services", "*", "command"), ("services", "*", "entrypoint"), ("services", "*", "healthcheck", "test")}
# May be written as a list of KEY=VALUE or as a mapping; merged by key.
_PAIRS = {
    ("services", "*", "environment"), ("services", "*", "labels"), ("services", "*", "annotations"),
    ("services", "*", "sysctls"), ("services", "*", "deploy", "labels"),
    ("networks", "*", "labels"), ("volumes", "*", "labels"),
}
# May be written as a list of names or as a mapping; merged by name.
_NAMED = {("services", "*", "networks"), ("services", "*", "depends_on")}
# May be written as one string or as a list.
_LISTS = {("services", "*", key) for key in ("dns", "dns_search", "env_file", "tmpfs")}


def _port_key(text: str) -> str:
    return str(parse_ports(text))


def _volume_key(text: str) -> str:
    return parse_volume(text).target


def _device_key(text: str) -> str:
    return parse_device(text)[1]


# Lists whose items stand for a thing: a later item about the same thing takes the place of the earlier one.
_KEYED: dict[Path, tuple[Callable[[str], str], tuple[str, ...]]] = {
    ("services", "*", "ports"): (_port_key, ("host_ip", "published", "target", "protocol")),
    ("services", "*", "volumes"): (_volume_key, ("target",)),
    ("services", "*", "devices"): (_device_key, ("target",)),
}


def _pattern(path: Path) -> Path:
    return tuple("*" if i == 1 else p for i, p in enumerate(path))


def canonical(node: Node, path: Path = ()) -> Node:
    """The tree with each list-or-mapping in one form, and without what `!reset` takes away."""
    pattern = _pattern(path)
    if pattern in _PAIRS and isinstance(node, Sequence):
        node = _pairs(node)
    elif pattern in _NAMED and isinstance(node, Sequence):
        node = _named(node)
    elif pattern in _LISTS and isinstance(node, Scalar) and node.value is not None:
        node = Sequence((node,), node.mark, node.tag)
    if isinstance(node, Mapping):
        return replace(node, entries={k: canonical(v, (*path, k)) for k, v in node.entries.items()})
    return node


def _pairs(node: Sequence) -> Mapping:
    entries: dict[str, Node] = {}
    for item in node.items:
        if not isinstance(item, Scalar):
            raise ComposeError("expected KEY=VALUE", item.mark)
        key, separator, value = as_text(item.value).partition("=")
        entries[key] = Scalar(value if separator else None, value, False, item.mark)
    return Mapping(entries, {k: v.mark for k, v in entries.items()}, node.mark, node.tag)


def _named(node: Sequence) -> Mapping:
    entries: dict[str, Node] = {}
    for item in node.items:
        if not isinstance(item, Scalar) or not isinstance(item.value, str):
            raise ComposeError("expected a name", item.mark)
        entries[item.value] = Scalar(None, "", True, item.mark)
    return Mapping(entries, {k: v.mark for k, v in entries.items()}, node.mark, node.tag)


def merge(base: Mapping, over: Mapping) -> Mapping:
    """*base* overridden by *over*; both canonical and interpolated."""
    merged = _merge(base, over, ())
    assert isinstance(merged, Mapping)
    return merged


def _merge(base: Node, over: Node, path: Path) -> Node:
    pattern = _pattern(path)
    if over.tag == "!override":
        return over
    if isinstance(over, Scalar) and over.value is None and pattern[:-1] not in _PAIRS:
        return base
    if pattern in _REPLACED:
        return over
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        if pattern == ("services", "*", "logging") and _other_driver(base, over):
            return over
        return _merge_mappings(base, over, path)
    if isinstance(base, Sequence) and isinstance(over, Sequence):
        return replace(over, items=_unique((*base.items, *over.items), pattern))
    return over


def _other_driver(base: Mapping, over: Mapping) -> bool:
    """Options belong to a driver: another driver does not inherit them."""
    old, new = base.entries.get("driver"), over.entries.get("driver")
    return isinstance(old, Scalar) and isinstance(new, Scalar) and old.value != new.value


def _merge_mappings(base: Mapping, over: Mapping, path: Path) -> Mapping:
    entries, keys = dict(base.entries), dict(base.keys)
    for key, value in over.entries.items():
        if value.tag == "!reset":
            entries.pop(key, None)
            continue
        entries[key] = _merge(entries[key], value, (*path, key)) if key in entries else value
        keys[key] = over.keys[key]
    return Mapping(entries, keys, base.mark)


def _unique(items: tuple[Node, ...], pattern: Path) -> tuple[Node, ...]:
    """Without repetitions: of items about the same thing the later one stays, in the place of the earlier."""
    found: dict[str, Node] = {}
    for index, item in enumerate(items):
        found[_item_key(item, pattern, index)] = item
    return tuple(found.values())


def _item_key(item: Node, pattern: Path, index: int) -> str:
    text_key, fields = _KEYED.get(pattern, (str, ()))
    if isinstance(item, Scalar):
        text = as_text(item.value)
        try:
            return text_key(text)
        except ValueError:
            return text     # not well-formed: the reading of the merged file will say so, with its place
    if isinstance(item, Mapping) and fields:
        values = [item.entries.get(f) for f in fields]
        texts = [as_text(v.value) if isinstance(v, Scalar) else "" for v in values]
        if fields == ("target",):
            return texts[0]
        return _long_port_key(*texts)
    return f"#{index}"


def _long_port_key(ip: str, published: str, target: str, protocol: str) -> str:
    """The same key as that of the short syntax for the same port."""
    short = f"{f'[{ip}]:' if ip else ''}{published}{':' if published or ip else ''}{target}/{protocol or 'tcp'}"
    try:
        return _port_key(short)
    except ValueError:
        return short


def settled(node: Node) -> Node:
    """The tree without what carries `!reset` (in a first file, where it has nothing to reset)."""
    if isinstance(node, Mapping):
        kept = {k: settled(v) for k, v in node.entries.items() if v.tag != "!reset"}
        return replace(node, entries=kept)
    return node
