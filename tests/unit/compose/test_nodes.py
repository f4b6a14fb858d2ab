"""YAML as Compose reads it, with the place of everything."""

from __future__ import annotations

import pytest

from backend.compose.errors import ComposeError
from backend.compose.nodes import Mapping, Scalar, Sequence, as_text, parse, resolve_plain


@pytest.mark.parametrize(("text", "value"), [
    ("", None), ("~", None), ("null", None), ("true", True), ("False", False), ("yes", "yes"), ("on", "on"),
    ("1", 1), ("-5", -5), ("+1", 1), ("1_000", 1000), ("0777", 511), ("089", 89), ("0x10", 16), ("0o17", 15),
    ("0b11", 3), ("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), ("22:22", "22:22"), ("2020-01-01", "2020-01-01"),
    ("1.2.3", "1.2.3"), ("-", "-"), (".", "."), ("1e", "1e"),
])
def test_plain_values_are_typed_as_docker_compose_types_them(text: str, value: object) -> None:
    assert resolve_plain(text) == value
    assert type(resolve_plain(text)) is type(value)


@pytest.mark.parametrize(("value", "text"), [
    (None, ""), (True, "true"), (False, "false"), (7, "7"), (1.0, "1"), (1000.0, "1000"), (0.5, "0.5"), (1e21, "1e+21"),
    (12345678.5, "1.23456785e+07"), (1.5e-7, "1.5e-07"), (0.0, "0"), (-2.5, "-2.5"), ("x", "x"),
])
def test_values_become_the_text_that_docker_compose_makes_of_them(value: object, text: str) -> None:
    assert as_text(value) == text  # type: ignore[arg-type]


def test_every_value_and_key_knows_its_place() -> None:
    tree = parse("a:\n  b: [x, 'y']\n", "f.yaml")
    inner = tree.entries["a"]
    assert isinstance(inner, Mapping)
    assert str(inner.keys["b"]) == "f.yaml:2:3"
    items = inner.entries["b"]
    assert isinstance(items, Sequence)
    assert [str(i.mark) for i in items.items] == ["f.yaml:2:7", "f.yaml:2:10"]
    assert [i.plain for i in items.items if isinstance(i, Scalar)] == [True, False]


@pytest.mark.parametrize(("text", "message"), [
    ("a: 1\nb: 2\na: 3\n", "f:3:1: the key 'a' is there already, in line 1"),
    ("a: {b: 1,\n  b: 2}", "f:2:3: the key 'b' is there already, in line 1"),
    ("- a\n", "f:1:1: a Compose file is a mapping at the top (services: ...)"),
    ("a: *x\n", "f:1:4: the alias *x is not defined before its use"),
    ("a: &x [*x]\n", "f:1:8: the alias *x contains itself"),
    ("a: 1\n---\nb: 2\n", "f:2:1: a second YAML document; a Compose file has one"),
    ("? [a]\n: 1\n", "f:1:3: a key must be a string"),
    ("a: !!python/object:os.system x\n", "f:1:4: the tag !!python/object:os.system is not supported"),
    ("a: !secret x\n", "f:1:4: the tag !secret is not supported"),
    ("a: {<<: 5}\n", "f:1:9: `<<` takes a mapping or a list of mappings"),
    ("a: [1\nb: 2\n", "f:2:2: while parsing a flow sequence, expected ',' or ']', but got ':'"),
])
def test_what_is_wrong_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ComposeError) as caught:
        parse(text, "f")
    assert str(caught.value) == message


def test_a_tab_is_explained() -> None:
    with pytest.raises(ComposeError, match=r"f:2:1: .*never tabs"):
        parse("a:\n\tb: 1\n", "f")


def test_merge_keys_bring_what_the_mapping_does_not_say_itself() -> None:
    tree = parse("x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz:\n  <<: [*x, *y]\n  a: 3\n", "f")
    entries = tree.entries["z"].entries  # type: ignore[union-attr]
    assert {k: v.value for k, v in entries.items()} == {"a": 3, "b": 1, "c": 2}  # type: ignore[union-attr]


def test_aliases_that_multiply_stop_instead_of_filling_the_memory() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    with pytest.raises(ComposeError, match="aliases expand to more than 200000 values"):
        parse("\n".join(lines), "f")


def test_deep_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises(ComposeError, match="nested deeper than 64 levels"):
        parse("a: " + "[" * 100_000, "f")


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert parse("", "f").entries == {} and parse("# nothing\n", "f").entries == {}
