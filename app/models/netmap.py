"""Where things stand on the map of networks. Pure: rows in, places in a grid out.

Networks are bars one below the other. A container hangs below the first of its networks and reaches down to the
others, in a column of which it needs only that stretch: containers on one network each share a column with those of
other networks, so that the map grows in width with the fullest network and not with all containers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.models.networks import NetworkRow
from app.models.rows import Attachment, ContainerRow

#: Engines' own networks stand last.
_LAST = {"bridge": 1, "host": 2, "none": 3}


@dataclass(frozen=True, slots=True)
class Joint:
    """Where a container meets a network: the bar's place and the address there ("" while it does not run)."""

    bar: int
    address: str


@dataclass(frozen=True, slots=True)
class Card:
    """A container on the map: its column, and its joints from top to bottom; the card hangs below the first."""

    container: ContainerRow
    column: int
    joints: tuple[Joint, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """A network on the map, and its place from the top."""

    network: NetworkRow
    place: int


@dataclass(frozen=True, slots=True)
class NetMap:
    """The whole map, as a grid of bars and columns."""

    bars: tuple[Bar, ...]
    cards: tuple[Card, ...]

    @property
    def columns(self) -> int:
        """How many columns there are."""
        return max((card.column + 1 for card in self.cards), default=0)


def net_map(networks: Sequence[NetworkRow], containers: Sequence[ContainerRow]) -> NetMap:
    """Place *networks* and the *containers* that are on any of them."""
    used = {one.network for row in containers for one in row.networks}
    shown = [one for one in networks if one.name in used or not one.built_in]
    shown.sort(key=lambda one: (_LAST.get(one.name, 0), one.stack, one.name))
    places = {one.name: place for place, one in enumerate(shown)}
    spans = [(row, joints) for row in containers if (joints := _joints(row.networks, places))]
    spans.sort(key=lambda pair: (pair[1][0].bar, -len(pair[1]), pair[0].project, pair[0].name))
    return NetMap(tuple(Bar(one, place) for place, one in enumerate(shown)), tuple(_columns(spans)))


def _joints(attachments: Sequence[Attachment], places: dict[str, int]) -> tuple[Joint, ...]:
    found = [Joint(places[one.network], one.address) for one in attachments if one.network in places]
    return tuple(sorted(found, key=lambda one: one.bar))


def _columns(spans: Sequence[tuple[ContainerRow, tuple[Joint, ...]]]) -> list[Card]:
    """The first column in which the stretch from the first to the last joint is free, for each in its turn."""
    taken: list[list[tuple[int, int]]] = []
    cards = []
    for row, joints in spans:
        first, last = joints[0].bar, joints[-1].bar
        column = next((number for number, rows in enumerate(taken)
                       if all(last < low or high < first for low, high in rows)), len(taken))
        if column == len(taken):
            taken.append([])
        taken[column].append((first, last))
        cards.append(Card(row, column, joints))
    return cards
