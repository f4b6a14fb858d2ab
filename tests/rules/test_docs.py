"""Pictures and links of the documents lead somewhere, and a clone stays small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_every_picture_and_page_that_a_document_names_is_there(page: Path) -> None:
    named = re.findall(r'(?:src|srcset)="([^"]+)"', page.read_text()) + re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [one for one in named if not (page.parent / one).exists()] == []


def test_no_picture_makes_a_clone_heavy() -> None:
    assert [one.name for one in DOCS.rglob("*.png") if one.stat().st_size > 150_000] == []
