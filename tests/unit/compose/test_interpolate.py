"""Variables in Compose files. Every row was compared with docker compose 2.40."""

from __future__ import annotations

import pytest

from backend.compose.errors import ComposeError
from backend.compose.interpolate import BadTemplate, interpolate, substitute
from backend.compose.nodes import Mapping, Scalar, parse

SET = {"A": "a", "B": "b b", "EMPTY": "", "N": "7"}


@pytest.mark.parametrize(("text", "expected"), [
    ("plain", "plain"),
    ("$A", "a"), ("${A}", "a"), ("x${A}y", "xay"), ("$A$B", "ab b"), ("$A-x", "a-x"), ("$Ax", ""),
    ("$$A", "$A"), ("$$$$", "$$"), ("$$$A", "$a"), ("a$", "a$"), ("$1", "$1"), ("$ A", "$ A"), ("$-", "$-"),
    ("${UNSET}", ""), ("$UNSET", ""),
    ("${UNSET:-d}", "d"), ("${EMPTY:-d}", "d"), ("${A:-d}", "a"),
    ("${UNSET-d}", "d"), ("${EMPTY-d}", ""), ("${A-d}", "a"), ("${UNSET-}", ""), ("${UNSET:-}", ""),
    ("${UNSET:+x}", ""), ("${EMPTY:+x}", ""), ("${A:+x}", "x"),
    ("${UNSET+x}", ""), ("${EMPTY+x}", "x"), ("${A+x}", "x"),
    ("${A:?e}", "a"), ("${A?e}", "a"), ("${EMPTY?e}", ""),
    ("${UNSET:-${A}}", "a"), ("${UNSET:-${UNSET:-${B}}}", "b b"), ("${A:+${B}}", "b b"), ("${A:-${UNSET:?no}}", "a"),
    ("${UNSET:-a:b-c?d+e}", "a:b-c?d+e"), ("${UNSET:-$$A}", "$A"), ("${A:-x}}", "a}"), ("${UNSET:-{}}", "{}"),
    ("${UNSET:-/var/lib}", "/var/lib"),
])
def test_the_grammar_of_variables(text: str, expected: str) -> None:
    assert substitute(text, SET.get) == expected


@pytest.mark.parametrize(("text", "why"), [
    ("${UNSET:?say it}", "required variable UNSET is missing a value: say it"),
    ("${EMPTY:?say it}", "required variable EMPTY is missing a value: say it"),
    ("${UNSET?}", "required variable UNSET is missing a value"),
    ("${UNSET:?set $A}", "required variable UNSET is missing a value: set a"),
    ("${}", "`${` needs a variable's name in '${}'; write $$ for a dollar sign"),
    ("${1}", "`${` needs a variable's name in '${1}'; write $$ for a dollar sign"),
    ("${A", "`${A` without its `}` in '${A'; write $$ for a dollar sign"),
    ("${A!x}", "'!' after ${A in '${A!x}'; write $$ for a dollar sign"),
    ("${A:x}", "':' after ${A in '${A:x}'; write $$ for a dollar sign"),
    ("${UNSET:-${A}", "`${` without its `}` in '${UNSET:-${A}'; write $$ for a dollar sign"),
    ("${A:-${B}", "`${` without its `}` in '${A:-${B}'; write $$ for a dollar sign"),
])
def test_what_cannot_be_replaced_says_why(text: str, why: str) -> None:
    with pytest.raises(BadTemplate) as caught:
        substitute(text, SET.get)
    assert str(caught.value) == why


def test_endless_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises(BadTemplate, match="nested deeper than 32"):
        substitute("${X:-" * 5000 + "}" * 5000, SET.get)


def test_each_missing_variable_is_told_and_those_with_a_default_are_not() -> None:
    told: list[str] = []
    substitute("$X ${Y} ${Z:-d} ${A:-$W} ${EMPTY}", SET.get, told.append)
    assert told == ["X", "Y"]


def read(text: str) -> Mapping:
    tree = interpolate(parse(text, "f"), SET.get)
    assert isinstance(tree, Mapping)
    return tree


@pytest.mark.parametrize(("text", "value"), [
    ("k: ${N}", 7), ("k: ${UNSET:-true}", True), ("k: ${UNSET:-1.5}", 1.5), ("k: '${N}'", "7"), ('k: "${N}"', "7"),
    ("k: x${N}", "x7"), ("k: ${UNSET}", ""), ("k: $$5", "$5"),
])
def test_an_unquoted_result_gets_the_type_of_what_came_out(text: str, value: object) -> None:
    scalar = read(text).entries["k"]
    assert isinstance(scalar, Scalar)
    assert scalar.value == value and type(scalar.value) is type(value)


def test_keys_are_never_replaced() -> None:
    assert list(read("a: {$A: 1}").entries["a"].entries) == ["$A"]  # type: ignore[union-attr]


def test_an_error_names_the_place_and_the_path() -> None:
    with pytest.raises(ComposeError) as caught:
        interpolate(parse("services:\n  web:\n    command: [a, '${X']\n", "compose.yaml"), SET.get)
    assert str(caught.value).startswith("compose.yaml:3:18: services.web.command[1]: `${X` without its `}`")
