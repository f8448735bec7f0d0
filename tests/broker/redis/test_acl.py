"""The documented rights are exactly what is used. That they suffice is shown by the contract suite."""

from __future__ import annotations

import re
from importlib.resources import files

from broker.redis.acl import KEYS, acl_rules


def test_the_rights_inside_scripts_are_those_that_the_scripts_use() -> None:
    used: set[str] = {"publish"}
    for script in (files("broker.redis") / "lua").iterdir():
        used |= {name.lower() for name in re.findall(r"redis\.p?call[(,] ?'(\w+)'", script.read_text())}
    assert used == {*KEYS, "publish"}


def test_the_rules_give_nothing_by_category_and_nothing_beside_the_prefix() -> None:
    rules = acl_rules("p")
    assert rules[:3] == ["resetkeys", "resetchannels", "-@all"]
    assert [rule for rule in rules if rule[0] in "~&%"] == ["~p:*", "&p:*"]
    assert not [rule for rule in rules if rule.startswith("+@")]
    assert not {"+eval", "+flushall", "+keys", "+config", "+script"} & set(rules)
