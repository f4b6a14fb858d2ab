"""Names as the store keeps and finds them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from backend.errors import InvalidArgument
from backend.images.index import Record
from backend.spec.reference import Reference, parse


def merge(first: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *more)))


def full_name(reference: Reference) -> str:
    """The name under which the store keeps *reference*."""
    tagged = reference.with_default_tag()
    return f"{tagged.repository}:{tagged.tag}"


def is_hex(text: str) -> bool:
    return bool(text) and all(one in "0123456789abcdef" for one in text)


def familiar(name: str) -> str:
    try:
        return parse(name).with_default_tag().familiar
    except InvalidArgument:
        return name


def names_record(name: str, record: Record) -> bool:
    """Whether *name* is one of the record's references, rather than its ID."""
    try:
        reference = parse(name)
    except InvalidArgument:
        return False
    return full_name(reference) in record.names or f"{reference.repository}@{reference.digest}" in record.digests


def meant(name: str) -> str:
    """The full name that *name* is short for; "" where it is an ID."""
    try:
        reference = parse(name)
    except InvalidArgument:
        return ""
    return f"{reference.repository}@{reference.digest}" if reference.digest else full_name(reference)
