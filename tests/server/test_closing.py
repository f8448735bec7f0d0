"""The close codes are those the protocol tells its users about, no more and no fewer."""

from __future__ import annotations

import re
from pathlib import Path

from websockets.frames import Close

from server import closing

CODES = {name: code for name, code in vars(closing).items() if name.isupper()}


def test_every_code_is_documented_and_the_other_way_round() -> None:
    text = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    table = text.split("## Close codes")[1].split("\n\n")[0]
    rows = re.findall(r"^\| ([0-9 /]+) \|", table, re.MULTILINE)
    documented = {int(code) for row in rows for code in re.findall(r"[0-9]{4}", row)}
    assert documented == set(CODES.values())


def test_no_code_has_two_names_and_all_may_travel_in_a_frame() -> None:
    assert len(set(CODES.values())) == len(CODES)
    for code in CODES.values():
        Close(code, "").check()
