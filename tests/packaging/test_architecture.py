"""docs/architecture.md and its picture show the rooms that there are."""

import re

import pytest

from support.sources import ARCHITECTURE as SCRIPT
from support.sources import ROOT

pytestmark = pytest.mark.xdist_group("source")
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_picture_is_current():
    picture = SCRIPT["PICTURE"].read_text(encoding="utf-8")
    assert picture == SCRIPT["render"](), "run `make docs`"
    assert "](architecture.svg)" in PAGE


def test_the_page_has_a_paragraph_for_every_room():
    rooms = SCRIPT["room_imports"]()
    told = re.findall(r"^\*\*(\w+)\*\* ", PAGE, re.MULTILINE)
    assert sorted(told) == sorted(rooms)
    floor = SCRIPT["floors"](rooms)
    assert [floor[room] for room in told] == sorted(floor.values()), "top floor first"


def test_every_module_that_the_page_names_is_there():
    named = re.findall(r"`(\w+(?:/\w+)*\.py)`", PAGE)
    assert named
    assert not [name for name in named if not (ROOT / "yarncli" / name).exists()]


def test_arrows_point_down_and_lose_no_import():
    imports = SCRIPT["room_imports"]()
    floor, arrows = SCRIPT["floors"](imports), SCRIPT["arrows"](imports)
    assert all(floor[room] < floor[other] for room, other in arrows)

    def below(room):
        return {other for start, other in arrows if start == room}

    for room, others in imports.items():
        reached, new = set(), {room}
        while new:
            new = set().union(*map(below, new)) - reached
            reached |= new
        assert others <= reached, room
