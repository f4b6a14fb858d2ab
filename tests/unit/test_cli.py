"""What a person types at `slipway` becomes what the engine is asked for, and what it says becomes what he reads."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.cli import mounts, ports, units
from app.cli.createbody import create_body
from app.cli.errors import Failure, Usage
from app.cli.images import rows_of
from app.cli.network import network_body
from app.cli.output import labelled
from app.cli.progress import bar, follow
from app.cli.run import start_code
from app.cli.runflags import CREATE, RUN
from app.cli.template import fill
from app.cli.terminal import Detacher, key_bytes
from app.cli.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]


def body(*words: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    return create_body(CREATE.parse(list(words)), env or {})


# --- flags -----------------------------------------------------------------------------------------------------------

def test_flags_end_at_the_image_so_that_the_commands_own_flags_are_its_own() -> None:
    given = RUN.parse(["-it", "--rm=false", "-p80", "img", "ls", "-l", "--rm"])
    assert given.interactive and given.tty and not given.rm and given.publish == ["80"]
    assert given.words == ["img", "ls", "-l", "--rm"]


@pytest.mark.parametrize("words", [["--bogus", "img"], ["-Z", "img"], ["-e"], ["--stop-timeout", "x", "img"], ["--tty=perhaps", "img"]])
def test_a_wrong_flag_ends_with_125_and_says_which(words: list[str]) -> None:
    with pytest.raises(Usage) as caught:
        RUN.parse(words)
    assert caught.value.code == 125 and words[0].lstrip("-").partition("=")[0][0] in str(caught.value)


def test_every_verb_of_the_list_can_be_called() -> None:
    from importlib import import_module

    for verb, (module, about) in VERBS.items():
        assert callable(import_module(module).main), verb
        assert about


# --- create ----------------------------------------------------------------------------------------------------------

def test_variables_come_from_files_flags_and_the_surroundings_in_that_order(tmp_path: Any) -> None:
    (tmp_path / "env").write_text("A=file\nB=file\n# no\nHERE\nAWAY\n")
    made = body("--env-file", str(tmp_path / "env"), "-e", "B=flag", "-e", "HERE", "-e", "AWAY", "img", env={"HERE": "yes"})
    assert made["Env"] == ["A=file", "B=flag", "HERE=yes", "AWAY"], "a name alone that is not set here unsets the image's"


def test_a_bad_line_of_a_file_is_named_with_its_number(tmp_path: Any) -> None:
    (tmp_path / "env").write_text("A=1\nb c=2\n")
    with pytest.raises(Usage, match="line 2"):
        body("--env-file", str(tmp_path / "env"), "img")


def test_an_empty_entrypoint_is_told_apart_from_none() -> None:
    assert body("img")["Entrypoint"] is None
    assert body("--entrypoint", "", "img")["Entrypoint"] == [""]
    assert body("--entrypoint=/x", "img", "a")["Cmd"] == ["a"]


def test_gpus_are_refused_with_words_and_not_ignored() -> None:
    with pytest.raises(Usage, match="GPUs") as caught:
        body("--gpus", "all", "img")
    assert caught.value.code == 125


def test_what_is_not_said_is_not_sent() -> None:
    host = body("img")["HostConfig"]
    assert "Binds" not in host and "Runtime" not in host and "Init" not in host and "MaskedPaths" not in host
    assert body("--init=false", "img")["HostConfig"]["Init"] is False


# --- ports, mounts, units --------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("word", "made"), [
    ("80", {"80/tcp": [{"HostIp": "", "HostPort": ""}]}),
    ("8080:80/udp", {"80/udp": [{"HostIp": "", "HostPort": "8080"}]}),
    ("[::1]:8080:80", {"80/tcp": [{"HostIp": "::1", "HostPort": "8080"}]}),
    ("127.0.0.1::80", {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
    ("8000-8001:80-81", {"80/tcp": [{"HostIp": "", "HostPort": "8000"}], "81/tcp": [{"HostIp": "", "HostPort": "8001"}]}),
    ("8000-8009:80", {"80/tcp": [{"HostIp": "", "HostPort": "8000-8009"}]}),
])
def test_a_published_port_is_read(word: str, made: dict[str, Any]) -> None:
    assert ports.published([word]) == made


@pytest.mark.parametrize("word", ["x", "80:x", "1-2:1-3", "70000", "80/icmp", "1:2:3:4", "9-8:80", "", "-1"])
def test_a_port_that_makes_no_sense_is_named(word: str) -> None:
    with pytest.raises(Usage, match="makes no sense"):
        ports.published([word])


def test_a_directory_of_here_is_made_absolute_and_a_volume_keeps_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert mounts.volumes(["./a:/a", "v:/v:ro", "/anon"]) == ([f"{tmp_path}/a:/a", "v:/v:ro"], ["/anon"])


def test_a_mount_with_a_comma_in_its_path_can_be_quoted() -> None:
    assert mounts.mounts(['type=bind,"source=/a,b",target=/c'])[0]["Source"] == "/a,b"


@pytest.mark.parametrize(("text", "count"), [("512", 512), ("1k", 1024), ("1.5m", 1572864), ("2GB", 2 << 30), ("1 GiB", 1 << 30)])
def test_sizes_are_read(text: str, count: int) -> None:
    assert units.size_in_bytes(text, "memory") == count


@pytest.mark.parametrize(("text", "nanoseconds"), [("1s", 10**9), ("1m30s", 90 * 10**9), ("1.5h", 5400 * 10**9), ("250ms", 25 * 10**7), ("0", 0)])
def test_lengths_of_time_are_read(text: str, nanoseconds: int) -> None:
    assert units.duration(text, "x") == nanoseconds


@pytest.mark.parametrize("text", ["", "s", "1", "1x", "1s x", "-1s"])
def test_other_lengths_of_time_are_refused(text: str) -> None:
    with pytest.raises(Usage):
        units.duration(text, "x")


def test_a_gateway_is_put_with_the_subnet_that_it_lies_in() -> None:
    from app.cli.network import _CREATE

    given = _CREATE.parse(["--subnet", "10.1.0.0/24", "--subnet", "10.2.0.0/24", "--gateway", "10.2.0.9", "--ip-range", "10.1.0.128/25",
                           "--aux-address", "nas=10.1.0.5", "n"])
    assert network_body(given)["IPAM"]["Config"] == [
        {"Subnet": "10.1.0.0/24", "IPRange": "10.1.0.128/25", "AuxiliaryAddresses": {"nas": "10.1.0.5"}},
        {"Subnet": "10.2.0.0/24", "Gateway": "10.2.0.9"}]
    with pytest.raises(Usage, match="none of the subnets"):
        network_body(_CREATE.parse(["--subnet", "10.1.0.0/24", "--gateway", "10.9.0.1", "n"]))


# --- what is shown ---------------------------------------------------------------------------------------------------

VALUE = {"Name": "x", "State": {"Status": "up", "Pid": 0}, "Args": ["a", "b"], "Ports": {"80/tcp": [{"HostPort": "8080"}], "9/udp": None}, "On": True}


@pytest.mark.parametrize(("template", "text"), [
    ("{{.Name}}: {{.State.Status}}", "x: up"), ("{{json .Args}}", '["a","b"]'), ("{{.Args}}", "[a b]"), ("{{.On}}", "true"),
    ("{{index .Args 1}}", "b"), ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
    ("{{range .Args}}<{{.}}>{{end}}", "<a><b>"), ("{{range $i, $one := .Args}}{{$i}}={{$one}} {{end}}", "0=a 1=b "),
    ('{{range $port, $to := .Ports}}{{if $to}}{{$port}}->{{(index $to 0).HostPort}}{{else}}{{$port}} no{{end}};{{end}}', "80/tcp->8080;9/udp no;"),
    ("{{if eq .Name \"x\"}}yes{{else}}no{{end}}", "yes"), ("{{if .State.Pid}}a{{else if .On}}b{{else}}c{{end}}", "b"),
    ("{{with .State}}{{.Status}}-{{$.Name}}{{end}}", "up-x"), ("{{join .Args \",\"}} {{len .Args}} {{upper .Name}}", "a,b 2 X"),
    ("{{.Name | upper | printf \"%s!\"}}", "X!"), ("a  {{- .Name -}}  b", "axb"), ("{{/* no */}}{{.Name}}\\t{{.Name}}", "x\tx"),
])
def test_a_template_is_filled_in(template: str, text: str) -> None:
    assert fill(template, VALUE) == text


@pytest.mark.parametrize("template", ["{{.Nope}}", "{{.Name", "{{nope .Name}}", "{{range .Args}}", "{{end}}", "{{}}", "{{index .Args 7}}", "{{(len .Args}}", "{{len 1}}"])
def test_a_template_that_makes_no_sense_is_said(template: str) -> None:
    with pytest.raises(Usage, match="template"):
        fill(template, VALUE)


def test_progress_is_told_once_where_there_is_no_terminal_and_an_error_in_it_is_an_error() -> None:
    out = io.StringIO()
    lines = [{"status": "Pulling", "id": "a"}, {"status": "Downloading", "id": "a", "progressDetail": {"current": 5, "total": 10}}, {"status": "done"}]
    follow(lines, out)
    assert out.getvalue() == "a: Pulling\ndone\n"
    with pytest.raises(Failure, match="broken") as caught:
        follow([{"errorDetail": {"message": "broken"}, "error": "broken"}], out, code=125)
    assert caught.value.code == 125


def test_a_bar_grows_with_the_bytes_and_fits_the_terminal() -> None:
    assert bar({"current": 58_724_000, "total": 60_020_000}, 80) == " 58.72MB/60.02MB"
    assert bar({"current": 5_000_000, "total": 10_000_000}, 200) == f"[{'=' * 25}>{' ' * 24}]      5MB/10MB"
    assert bar({"current": 5_000_000, "total": 10_000_000}, 80) == "     5MB/10MB"
    assert bar({"current": 7}, 80) == "7B" and bar({}, 200) == ""


def test_the_list_is_over_before_anything_heavy_is_loaded() -> None:
    code = ("import sys; from app.cli.main import main; main(['-H', 'unix:///nonexistent.sock', 'ps']); main(['-H', 'unix:///nonexistent.sock', 'run', 'x']);"
            "print(*sys.modules)")
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split())
    assert "app.cli.ps" in loaded and "app.cli.run" in loaded
    assert not loaded & {"asyncio", "aiohttp", "dataclasses", "argparse", "http.client", "email", "subprocess", "inspect", "logging", "msgspec", "keyring",
                         "PySide6", "app.cli.login", "app.cli.compose", "backend.credentials"}


def test_a_label_is_asked_for_by_name_and_no_part_of_the_document() -> None:
    row = {"Name": "x", **labelled({"a": "1", "b": "2"})}
    assert fill('{{.Label "b"}}|{{.Label "c"}}|{{.Labels}}', row) == "2||a=1,b=2"
    with pytest.raises(Usage, match="takes no arguments"):
        fill('{{.Name "b"}}', row)


def test_an_image_has_a_line_for_each_name_and_one_without_any() -> None:
    image = {"Id": "sha256:" + "a" * 64, "Created": 0, "Size": 1, "RepoTags": ["r:1", "r:2", "h:5000/x:3"], "RepoDigests": ["r@sha256:d"]}
    assert [(row["Repository"], row["Tag"], row["Digest"]) for row in rows_of(image, True, False)] == [
        ("r", "1", "sha256:d"), ("r", "2", "sha256:d"), ("h:5000/x", "3", "<none>")]
    assert [(row["Repository"], row["Tag"]) for row in rows_of({**image, "RepoTags": [], "RepoDigests": []}, False, False)] == [("<none>", "<none>")]


@pytest.mark.parametrize(("reason", "code"), [
    ('exec: "x": executable file not found in $PATH', 127), ("stat /x: no such file or directory", 127), ("permission denied", 126),
    ("is a directory", 126), ("port is already allocated", 125)])
def test_a_start_that_fails_has_the_exit_code_of_a_shell(reason: str, code: int) -> None:
    assert start_code(reason) == code


def test_detach_keys_are_found_across_reads_and_what_only_began_like_them_goes_on() -> None:
    keys = Detacher(key_bytes("ctrl-p,ctrl-q"))
    assert keys.feed(b"a\x10") == (b"a", False)
    assert keys.feed(b"b") == (b"\x10b", False)
    assert keys.feed(b"\x10") == (b"", False)
    assert keys.feed(b"\x11rest") == (b"", True)
