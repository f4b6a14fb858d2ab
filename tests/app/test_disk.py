"""The picture of disk use: areas are sizes, nothing is counted twice, and what may go is offered."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.models.disk import Part, parts, tiles, totals
from app.widgets.treemap import TreeMap
from backend.spec import api


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=40), st.integers(50, 2000), st.integers(50, 2000))
def test_every_part_gets_the_area_of_its_size_and_no_two_overlap(sizes: list[int], width: int, height: int) -> None:
    found = tiles([Part("image", str(number), size) for number, size in enumerate(sizes)], width, height)
    scale = width * height / sum(sizes)
    shown = [one for one in found if one.part.size * scale > 1]
    for one in shown:
        left, top, wide, high = one.area
        assert wide * high == pytest.approx(one.part.size * scale, rel=1e-3)
        assert left > -0.01 and top > -0.01 and left + wide < width + 0.01 and top + high < height + 0.01
    for number, one in enumerate(shown):
        for other in shown[number + 1:]:
            (a, b, c, d), (e, f, g, h) = one.area, other.area
            assert min(a + c, e + g) - max(a, e) < 0.01 or min(b + d, f + h) - max(b, f) < 0.01


def test_what_images_share_counts_once_and_what_nobody_needs_is_told() -> None:
    usage = api.DiskUsage(
        layers_size=1000, images=[api.ImageSummary(id="sha256:1", repo_tags=["a:1"], size=700, shared_size=400, containers=1),
                                  api.ImageSummary(id="sha256:2", repo_tags=["<none>:<none>"], size=700, shared_size=400, containers=0)],
        volumes=[api.Volume(name="v", usage_data=api.UsageData(size=50, ref_count=0)), api.Volume(name="w", usage_data=api.UsageData(size=0, ref_count=0))],
        build_cache=[api.BuildCacheItem(id="c", description="RUN make", size=30)])
    found = parts(usage)
    assert sum(one.size for one in found) == 1000 + 50 + 30
    assert totals(found) == {"image": (600, 300), "shared": (400, 0), "volume": (50, 50), "cache": (30, 30)}


def test_the_picture_is_drawn_and_told_to_who_cannot_see_it(qtbot: object) -> None:
    made = TreeMap()
    qtbot.addWidget(made)
    made.resize(600, 300)
    made.show_parts([Part("image", "debian:13", 120_000_000), Part("volume", "data", 5_000_000, free=True)])
    assert not made.grab().isNull()
    assert "debian:13" in made.accessibleDescription() and "not needed" in made.accessibleDescription()
