"""`.env` files. Every row was compared with docker compose 2.40."""

from __future__ import annotations

import pytest

from backend.compose.env_file import parse_env
from backend.compose.errors import ComposeError


@pytest.mark.parametrize(("text", "expected"), [
    ("A=1", {"A": "1"}), ("A=1 # c", {"A": "1"}), ("A=1#c", {"A": "1#c"}), ("A=#c", {"A": "#c"}), ("# c\n\n", {}),
    ("A=", {"A": ""}), ("A: yaml", {"A": "yaml"}), ("export A=x", {"A": "x"}), ("A = spaced ", {"A": "spaced"}),
    ("A=a   b  ", {"A": "a   b"}), ("A=it's", {"A": "it's"}), ("A=a\\nb", {"A": "a\\nb"}),
    ('A="x # y" # c', {"A": "x # y"}), ("A='lit $B'", {"A": "lit $B"}), ('A="a\\nb\\t\\"c\\""', {"A": 'a\nb\t"c"'}),
    ('A="a\\\\b"', {"A": "a\\b"}), ('A="\\$B"', {"A": "$B"}), ('A="one\ntwo"\nB=3', {"A": "one\ntwo", "B": "3"}),
    ("A='one\ntwo'", {"A": "one\ntwo"}), ("A=1\nB=$A-${C:-z}", {"A": "1", "B": "1-z"}), ('A=1\nB="${A}"', {"A": "1", "B": "1"}),
    ("A=$$x", {"A": "$x"}), ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}), ("\ufeffA=1", {"A": "1"}),
    ("INHERITED", {"INHERITED": "from outside"}), ("MISSING", {}), ("A=$INHERITED", {"A": "from outside"}),
    ("A=1\nA=2", {"A": "2"}), ("INHERITED=mine\nB=$INHERITED", {"INHERITED": "mine", "B": "from outside"}),
])
def test_the_grammar_of_env_files(text: str, expected: dict[str, str]) -> None:
    assert parse_env(text, ".env", {"INHERITED": "from outside"}.get) == expected


@pytest.mark.parametrize(("text", "message"), [
    ('A=1\nB="x\n', ".env:2:3: the quote \" is never closed"),
    ("A B=1", ".env:1:1: a variable's name cannot contain a blank: 'A B'"),
    ("X=1\n =3", ".env:2:2: a line needs a variable's name before its `=`"),
    ("A=${B", ".env:1:3: `${B` without its `}` in '${B'; write $$ for a dollar sign"),
])
def test_a_wrong_line_is_named(text: str, message: str) -> None:
    with pytest.raises(ComposeError) as caught:
        parse_env(text, ".env", {}.get)
    assert str(caught.value) == message
