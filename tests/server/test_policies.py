"""How much history which rooms keep."""

from __future__ import annotations

import pytest

from broker.base import History
from server.policies import MAX_ENTRIES, history_of, parse_rules


def test_the_first_rule_whose_pattern_matches_decides() -> None:
    rules = parse_rules("chat:vip:*=5000, chat:*=1000/24h/8MiB, game:*=none")
    assert history_of("chat:vip:1", rules) == History(max_entries=5000)
    assert history_of("chat:1", rules) == History(max_entries=1000, ttl_s=86400, max_bytes=8 * 2**20)
    assert history_of("game:1", rules).max_entries == 0
    assert history_of("chat", rules) == History()  # no rule: the default


def test_text_and_mapping_say_the_same() -> None:
    mapping = {"chat:*": "1000/24h", "game:*": None, "*": 10}
    assert parse_rules(mapping) == parse_rules("chat:*=1000/24h, game:*=none, *=10")
    assert parse_rules(parse_rules(mapping)) == parse_rules(mapping)


def test_only_the_star_is_special_in_a_pattern() -> None:
    rules = parse_rules("a.b*c=1, *=2")
    assert history_of("a.bXc", rules).max_entries == 1
    assert history_of("a.bc", rules).max_entries == 1
    assert history_of("aXbc", rules).max_entries == 2
    assert history_of("a.bXcd", rules).max_entries == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("chat:*", "no history rule"),
        ("chat:*=", "no history rule"),
        ("chat:*=1/2/3/4", "no history rule"),
        ("chat:*=-1", "no history rule"),
        ("a?=1", "no room pattern"),
        ("=1", "no room pattern"),
        ("a=1/0s", "out of range"),
        ("a=1/1s/0", "out of range"),
        (f"a={MAX_ENTRIES + 1}", "out of range"),
        ("a=1/later", "a time is"),
        ("a=1/1s/huge", "a size is"),
        (17, "history is written"),
    ],
)
def test_what_is_no_rule_is_refused_with_the_reason(text: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_rules(text)
