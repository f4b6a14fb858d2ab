"""The /etc/hosts that the engine writes for each container. Pure text."""

from __future__ import annotations

from collections.abc import Sequence

from backend.errors import InvalidArgument

_HOSTS = (("127.0.0.1", "localhost"), ("::1", "localhost ip6-localhost ip6-loopback"), ("fe00::", "ip6-localnet"),
          ("ff00::", "ip6-mcastprefix"), ("ff02::1", "ip6-allnodes"), ("ff02::2", "ip6-allrouters"))


def extra_hosts(entries: Sequence[str], gateway: str) -> list[tuple[str, str]]:
    """`--add-host` entries (NAME:ADDRESS or NAME=ADDRESS) as (address, name); `host-gateway` is the host's address."""
    made = []
    for entry in entries:
        name, separator, address = entry.partition("=") if "=" in entry else entry.partition(":")
        address = address.strip("[]")
        if not name or not separator or not address or any(one.isspace() for one in entry):
            raise InvalidArgument(f"bad format for add-host: {entry!r}")
        if address == "host-gateway":
            if not gateway:
                raise InvalidArgument('unable to derive the IP value for host-gateway')
            address = gateway
        made.append((address, name))
    return made


def hosts(own: Sequence[tuple[str, str]], extra: Sequence[tuple[str, str]], base: str = "") -> str:
    """A container's hosts file. *own*: its addresses and names; *base*: the host's file, for the host's network."""
    lines = [base.rstrip("\n")] if base else [f"{address}\t{names}" for address, names in _HOSTS]
    lines += [f"{address}\t{names}" for address, names in (*extra, *own)]
    return "\n".join(lines) + "\n"


def own_names(hostname: str, domainname: str) -> str:
    """What a container's address is called in its hosts file."""
    if domainname:
        return f"{hostname}.{domainname} {hostname}"
    short = hostname.partition(".")[0]
    return f"{hostname} {short}" if short != hostname else hostname
