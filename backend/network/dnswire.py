"""DNS messages (RFC 1035) as far as a container's resolver needs them: pure bytes in, bytes out.

By hand because it answers in the helper's loop: a look-up costs some 10 us this way against 150 us through a general
library. Anything that is not one plain question is passed on or refused, never guessed at. The tests read its answers
with dnspython.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, PTR, AAAA, ANY, OPT = 1, 12, 28, 255, 41
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
_QR, _AA, _TC, _RD, _RA, _OPCODE = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x7800
_PLAIN_UDP = 512        # bytes, for clients without EDNS
_LARGEST_UDP = 4096
TTL = 600               # seconds, Docker's


class Malformed(ValueError):
    """The bytes are no query that could be answered."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question as a client asked it. ``name`` is lower case without the final dot; ``raw`` is its wire form with
    type and class, to be repeated in the answer; ``limit`` is the largest UDP answer in bytes that the client takes."""

    identity: int
    flags: int
    name: str
    kind: int
    klass: int
    raw: bytes
    limit: int
    edns: bool

    @property
    def is_plain(self) -> bool:
        """A standard query of class IN."""
        return not self.flags & _OPCODE and self.klass == IN


def parse(data: bytes) -> Question:
    """The question in a query; Malformed for anything else."""
    if len(data) < 17:
        raise Malformed("too short")
    identity, flags, questions, answers, authorities, additional = struct.unpack_from("!6H", data)
    if flags & _QR or questions != 1 or answers or authorities or additional > 2:
        raise Malformed("not a query with one question")
    labels: list[str] = []
    at = 12
    while True:
        if at >= len(data):
            raise Malformed("the name does not end")
        size = data[at]
        at += 1
        if not size:
            break
        if size > 63 or at + size > len(data) or at - 12 > 255:
            raise Malformed("a label is too long or compressed")
        labels.append(data[at:at + size].decode("latin-1").lower())
        at += size
    if at + 4 > len(data):
        raise Malformed("the question is cut off")
    kind, klass = struct.unpack_from("!HH", data, at)
    limit, edns = _PLAIN_UDP, False
    if additional and len(data) >= at + 15 and data[at + 4] == 0:
        record, size = struct.unpack_from("!HH", data, at + 5)
        if record == OPT:
            limit, edns = min(max(size, _PLAIN_UDP), _LARGEST_UDP), True
    return Question(identity, flags, ".".join(labels), kind, klass, data[12:at + 4], limit, edns)


def encode_name(name: str) -> bytes:
    """A name in wire form. ValueError where a label is empty or too long."""
    packed = b""
    for label in name.rstrip(".").split("."):
        raw = label.encode("latin-1", "replace")
        if not 0 < len(raw) < 64:
            raise ValueError(f"not a DNS name: {name!r}")
        packed += bytes([len(raw)]) + raw
    return packed + b"\0"


def _answer(question: Question, code: int, records: Sequence[tuple[int, bytes]], *, tcp: bool) -> bytes:
    flags = _QR | _RA | (question.flags & (_RD | _OPCODE)) | code
    body = b""
    used = 0
    extra = b"\0" + struct.pack("!HHIH", OPT, _LARGEST_UDP, 0, 0) if question.edns else b""
    room = (65535 if tcp else question.limit) - 12 - len(question.raw) - len(extra)
    for kind, data in records:
        record = struct.pack("!HHHIH", 0xC00C, kind, IN, TTL, len(data)) + data     # 0xC00C: the name in the question
        if len(body) + len(record) > room:
            flags |= _TC
            break
        body += record
        used += 1
    header = struct.pack("!6H", question.identity, flags, 1, used, 0, 1 if extra else 0)
    return header + question.raw + body + extra


def addresses(question: Question, found: Sequence[str], *, tcp: bool = False) -> bytes:
    """The answer with addresses of the family that was asked for; none: the name exists without such an address."""
    version = 4 if question.kind == A else 6
    packed = [(question.kind, ipaddress.ip_address(text).packed) for text in found
              if ipaddress.ip_address(text).version == version]
    return _answer(question, NOERROR, packed, tcp=tcp)


def pointer(question: Question, name: str, *, tcp: bool = False) -> bytes:
    """The answer to a reverse look-up."""
    return _answer(question, NOERROR, [(PTR, encode_name(name))], tcp=tcp)


def failure(question: Question, code: int) -> bytes:
    """An answer without records and with a code."""
    return _answer(question, code, (), tcp=False)


def refusal(data: bytes) -> bytes:
    """FORMERR for bytes that could not be parsed; b"" where not even an answer can be addressed."""
    if len(data) < 12 or data[2] & 0x80:
        return b""
    return data[:2] + struct.pack("!5H", _QR | FORMERR, 0, 0, 0, 0)


def reverse_address(name: str) -> str:
    """The address that a name below in-addr.arpa or ip6.arpa stands for; "" for any other."""
    labels = name.split(".")
    try:
        if name.endswith(".in-addr.arpa") and len(labels) == 6:
            return str(ipaddress.IPv4Address(".".join(reversed(labels[:4]))))
        if name.endswith(".ip6.arpa") and len(labels) == 34:
            return str(ipaddress.IPv6Address(bytes.fromhex("".join(reversed(labels[:32])))))
    except ValueError:
        return ""
    return ""


def is_answer_to(data: bytes, query: bytes) -> bool:
    """*data* answers *query*: same identity, and the same question (apart from letter case) where it repeats one."""
    if len(data) < 12 or data[:2] != query[:2] or not data[2] & 0x80:
        return False
    if not int.from_bytes(data[4:6], "big"):
        return True
    try:
        asked = parse(query)
    except Malformed:
        return False
    return data[12:12 + len(asked.raw)].lower() == asked.raw.lower()


def truncated(question: Question) -> bytes:
    """An empty answer that tells the client to come back by TCP."""
    return struct.pack("!6H", question.identity, _QR | _RA | _TC | (question.flags & _RD), 1, 0, 0, 0) + question.raw
