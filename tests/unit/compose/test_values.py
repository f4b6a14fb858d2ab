"""Compose's small languages."""

from __future__ import annotations

import pytest

from backend.compose.model import Mount, PortMapping
from backend.compose.theirs import duration_text
from backend.compose.values import (
    parse_command,
    parse_device,
    parse_duration,
    parse_expose,
    parse_extra_host,
    parse_ports,
    parse_size,
    parse_volume,
)


@pytest.mark.parametrize(("text", "ports"), [
    ("70", [PortMapping(70, "", "", "tcp")]),
    ("8080:80", [PortMapping(80, "8080", "", "tcp")]),
    ("53:53/UDP", [PortMapping(53, "53", "", "udp")]),
    ("127.0.0.1:8080:80", [PortMapping(80, "8080", "127.0.0.1", "tcp")]),
    ("127.0.0.1::80", [PortMapping(80, "", "127.0.0.1", "tcp")]),
    ("[::1]:90:91", [PortMapping(91, "90", "::1", "tcp")]),
    ("9000-9001:90-91", [PortMapping(90, "9000", "", "tcp"), PortMapping(91, "9001", "", "tcp")]),
    ("90-91", [PortMapping(90, "", "", "tcp"), PortMapping(91, "", "", "tcp")]),
    ("8000-8010:80", [PortMapping(80, "8000-8010", "", "tcp")]),
])
def test_port_mappings(text: str, ports: list[PortMapping]) -> None:
    assert list(parse_ports(text)) == ports


@pytest.mark.parametrize("text", ["", "x", "80:", "80:80:80:80", "1:2:3", "70000", "80:0", "5-3", "80/ftp", "[::1]80",
                                  "8000-8001:80-82", "a:80", "-1:80"])
def test_wrong_port_mappings_are_refused_by_their_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not a port mapping"):
        parse_ports(text)


@pytest.mark.parametrize(("text", "mount"), [
    ("/data", Mount("volume", "", "/data")),
    ("db:/data", Mount("volume", "db", "/data")),
    ("db:/data:ro", Mount("volume", "db", "/data", read_only=True)),
    ("db:/data:nocopy", Mount("volume", "db", "/data", nocopy=True)),
    ("./a:/b", Mount("bind", "./a", "/b", create_host_path=True)),
    ("~/a:/b:ro,z", Mount("bind", "~/a", "/b", read_only=True, create_host_path=True, selinux="z")),
    ("/a:/b:rw,rshared", Mount("bind", "/a", "/b", create_host_path=True, propagation="rshared")),
])
def test_mounts(text: str, mount: Mount) -> None:
    assert parse_volume(text) == mount


@pytest.mark.parametrize("text", ["", "a:b", ":/a", "a:/b:sometimes", "a:/b:ro:x", "/a:ro"])
def test_wrong_mounts_are_refused_by_their_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not a mount"):
        parse_volume(text)


@pytest.mark.parametrize(("text", "size"), [
    ("0", 0), ("100", 100), ("64m", 64 << 20), ("1.5gb", 1610612736), ("1GiB", 1 << 30), ("2 k", 2048), ("-1", -1),
])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["5x", "m", "", "1..5m", "-5m"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "nanoseconds", "shown"), [
    ("90s", 90 * 10**9, "1m30s"), ("1m30s", 90 * 10**9, "1m30s"), ("1.5h", 5400 * 10**9, "1h30m0s"),
    ("100ms", 10**8, "100ms"), ("1m", 60 * 10**9, "1m0s"), ("0", 0, "0s"), ("1.5s", 1_500_000_000, "1.5s"),
    ("10us", 10_000, "10µs"),
])
def test_durations_and_how_go_prints_them(text: str, nanoseconds: int, shown: str) -> None:
    assert parse_duration(text) == nanoseconds
    assert duration_text(nanoseconds) == shown


@pytest.mark.parametrize("text", ["", "5", "1m 3s", "s", "1x", "1m3"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_command_lines_are_split_as_a_shell_splits_them() -> None:
    assert parse_command("sh -c 'echo \"a b\"' x\\ y # no comment") == ("sh", "-c", 'echo "a b"', "x y", "#", "no", "comment")
    assert parse_command("") == ()
    assert parse_command("a '' \"\" 'b\\ c' \"x\\ y\" d\\'e \\\"f") == ("a", "", "", "b\\ c", "x y", "d'e", '"f')
    with pytest.raises(ValueError, match="cannot be split into words: the quote ' is never closed"):
        parse_command("echo 'x")


def test_devices_exposed_ports_and_extra_hosts() -> None:
    assert parse_device("/dev/a") == ("/dev/a", "/dev/a", "rwm")
    assert parse_device("/dev/a:/dev/b:r") == ("/dev/a", "/dev/b", "r")
    assert parse_expose("80-81/udp") == ("80/udp", "81/udp")
    assert parse_extra_host("a:1.2.3.4") == ("a", "1.2.3.4")
    assert parse_extra_host("a=[::1]") == ("a", "::1")
    assert parse_extra_host("a:host-gateway") == ("a", "host-gateway")
    with pytest.raises(ValueError, match="'x' is no IP address"):
        parse_extra_host("a:x")
