"""Whatever stands in a file: a project comes out, or an error with words; never a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.compose.bodies import container_body, network_body, volume_body
from backend.compose.env_file import parse_env
from backend.compose.errors import ComposeError
from backend.compose.interpolate import BadTemplate, substitute
from backend.compose.labels import parse_depends_on
from backend.compose.load import load_project
from backend.compose.nodes import parse
from backend.compose.read_service import DEPLOY_NOT_YET, SERVICE_NOT_YET
from backend.spec import api

SERVICE_KEYS = ["image", "command", "entrypoint", "environment", "env_file", "ports", "expose", "volumes", "tmpfs", "networks", "network_mode", "depends_on", "labels", "annotations", "restart", "healthcheck", "container_name", "devices", "sysctls", "init", "attach", "stop_grace_period", "extra_hosts", "logging", "pull_policy", "profiles", "user", "working_dir", "hostname", "cap_add", "group_add", "security_opt", "dns", "ulimits", "deploy", "scale", "mem_limit", "cpus", "cpu_quota", "shm_size", "pids_limit", "privileged", "tty", "ipc", "pid", "x-a"]
WORDS = st.sampled_from(["", "a", "80", "80:80", "./a:/b", "/a", "1g", "5s", "${A}", "${A:-b}", "$", "a=b", "true", "default", "v:/c",
                         "{", "service_healthy", "test", "CMD", "-1", "0", "1.5", "a:b:c:d", "no", "host", "9" * 30, "9" * 400 + "g", "9" * 5000, "9" * 400 + "h", "inf", "nan", "\0", "\ud7ff"])
LEAVES = st.none() | st.booleans() | st.integers(-3, 10**12) | st.floats(allow_nan=False, allow_infinity=False) | WORDS
INNER = st.sampled_from(["test", "interval", "retries", "target", "type", "source", "published", "condition", "aliases", "soft", "hard",
                         "driver", "options", "resources", "limits", "memory", "cpus", "replicas", "path", "bind", "web", "default", "a"])
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(INNER, inner, max_size=3), max_leaves=8)
SERVICES = st.dictionaries(st.sampled_from(SERVICE_KEYS), VALUES, max_size=5).map(lambda s: {"image": "a", **s})


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_as_yaml(text: str) -> None:
    try:
        parse(text, "f")
    except ComposeError as error:
        assert str(error).startswith("f:")


@given(st.text(alphabet="ab$${}:-?+_ \\", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_with_variables(text: str) -> None:
    try:
        substitute(text, {"a": "1"}.get)
    except BadTemplate as error:
        assert str(error)


@given(st.text(alphabet="ab=:'\"\\ \n#$\t", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_as_an_env_file(text: str) -> None:
    try:
        parse_env(text, "f", {}.get)
    except ComposeError as error:
        assert str(error).startswith("f:")


@given(SERVICES, st.dictionaries(st.sampled_from(["default", "n"]), VALUES, max_size=2), VALUES)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_under_the_right_keys(tmp_path: Path, service: Any, networks: Any, volume: Any) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(json.dumps({"services": {"web": service}, "networks": networks, "volumes": {"v": volume}}))
    try:
        project = load_project([str(path)], name="p", env={})
    except ComposeError as error:
        assert error.message
        return
    for read in project.services:
        api.encode(container_body(project, read, 1))
    for network in project.networks:
        api.encode(network_body(project, network))
    for made in project.volumes:
        api.encode(volume_body(project, made))


@given(st.text(alphabet="ab:,true", max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_text_in_a_foreign_label(text: str) -> None:
    assert all(d.service for d in parse_depends_on(text))


def test_no_key_is_both_read_and_refused() -> None:
    assert not set(SERVICE_KEYS) & SERVICE_NOT_YET and not {"resources", "replicas", "restart_policy"} & DEPLOY_NOT_YET


def test_numbers_of_any_length_are_refused_with_words(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    for key in ("mem_limit", "stop_grace_period", "cpus", "scale", "pids_limit", "cpu_quota", "tty"):
        for value in ("9" * 5000, "9" * 400, "9" * 400 + "g", "9" * 400 + "h", "9" * 30 + "h"):
            path.write_text(f"services: {{web: {{image: a, {key}: {value}}}}}")
            with pytest.raises(ComposeError, match=r"compose\.yaml:1:\d+: services\.web\."):
                load_project([str(path)], name="p", env={})
