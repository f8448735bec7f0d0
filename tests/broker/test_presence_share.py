"""What a node decides to send, and what it makes of the answers."""

from __future__ import annotations

from broker.presence import Entity, Share

ALICE, BOB, ALICE_IN_R = Entity(None, '"alice"'), Entity(None, "7"), Entity("r", '"alice"')


def begun(*entities: Entity) -> Share:
    """A share whose table has been said and confirmed."""
    share = Share()
    for entity in entities:
        share.set_count(entity, 1)
    share.begin("n:1")
    while (batch := share.next_batch()) is not None:
        share.confirmed(batch)
    return share


def test_nothing_is_sent_before_the_first_registration_and_everything_after_it() -> None:
    share = Share()
    assert not share.set_count(ALICE, 2) and not share.set_count(BOB, 1) and not share.set_count(BOB, 0)
    assert share.next_batch() is None
    share.begin("n:1")
    assert share.waiting
    assert share.next_batch() == ("n:1", 1, 0, [(ALICE, 2)])


def test_a_batch_carries_the_counts_of_the_moment_it_is_sent() -> None:
    share = begun()
    assert share.set_count(ALICE, 1) and share.set_count(ALICE, 3) and share.set_count(BOB, 1)
    assert share.set_count(BOB, 0)
    batch = share.next_batch()
    assert batch is not None and batch.counts == [(ALICE, 3), (BOB, 0)]


def test_what_has_not_changed_is_not_sent() -> None:
    share = begun(ALICE)
    assert not share.set_count(ALICE, 1) and not share.set_count(BOB, 0)
    assert not share.waiting and share.next_batch() is None


def test_one_batch_is_in_flight_and_what_changes_meanwhile_follows() -> None:
    share = begun()
    share.set_count(ALICE, 1)
    first = share.next_batch()
    assert first is not None
    share.set_count(ALICE, 2)
    assert share.next_batch() is None
    share.confirmed(first)
    assert share.next_batch() == ("n:1", 2, 1, [(ALICE, 2)])


def test_a_batch_is_bounded_and_the_rest_follows_in_order() -> None:
    share = begun()
    entities = [Entity("r", str(number)) for number in range(600)]
    for entity in entities:
        share.set_count(entity, 1)
    sent = []
    while (batch := share.next_batch()) is not None:
        assert len(batch.counts) <= 256
        sent += [entity for entity, _ in batch.counts]
        share.confirmed(batch)
    assert sent == entities and share.acked == 3


def test_an_unknown_outcome_is_covered_by_a_later_number_with_later_counts() -> None:
    share = begun()
    share.set_count(ALICE, 1)
    lost = share.next_batch()
    assert lost is not None
    share.unknown(lost)
    share.set_count(ALICE, 5)
    assert share.next_batch() == ("n:1", 2, 0, [(ALICE, 5)])


def test_a_refused_node_is_silent_until_it_begins_anew_and_then_says_everything() -> None:
    share = begun(ALICE, ALICE_IN_R)
    share.refused("n:1", "FENCED")
    assert share.incarnation is None and not share.set_count(BOB, 1) and share.next_batch() is None
    share.begin("n:2")
    assert share.next_batch() == ("n:2", 1, 0, [(ALICE, 1), (ALICE_IN_R, 1), (BOB, 1)])


def test_the_former_incarnation_ends_only_when_everything_has_been_said_again() -> None:
    share = begun(ALICE, BOB)
    share.refused("n:1", "ROLLBACK")
    share.begin("n:2")
    for _ in range(2):
        assert share.former == [] and share.waiting
        batch = share.next_batch(limit=1)
        assert batch is not None
        share.confirmed(batch)
    assert share.former == ["n:1"] and share.waiting
    share.ended("n:1")
    assert share.former == [] and not share.waiting


def test_a_fenced_incarnation_need_not_be_ended() -> None:
    share = begun()
    share.refused("n:1", "FENCED")
    share.begin("n:2")
    assert share.former == []


def test_answers_to_a_former_incarnation_are_nothing_to_the_present_one() -> None:
    share = begun(ALICE)
    share.set_count(BOB, 1)
    late = share.next_batch()
    assert late is not None
    share.refused("n:1", "FENCED")
    share.begin("n:2")
    share.confirmed(late)
    share.unknown(late)
    share.refused("n:1", "STALE")
    assert share.acked == 0 and share.former == [] and share.incarnation == "n:2"
    assert share.next_batch() == ("n:2", 1, 0, [(ALICE, 1), (BOB, 1)])
