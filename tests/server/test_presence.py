"""Presence as clients see it, over two nodes."""

from __future__ import annotations

from typing import Any

import orjson

from server.rosters import PAGE_USERS, page_of
from tests.support.connections import RecordingConnection as Client
from tests.support.hubs import hubs


def told(event: dict[str, Any]) -> tuple[object, object, object]:
    return event.get("room"), event["user_id"], event["status"]


async def heard(client: Client, user: int | str, status: str, room: str | None = None) -> None:
    def wanted(event: dict[str, Any]) -> bool:
        return event.get("type") == "presence" and told(event) == (room, user, status)

    await client.until(wanted)


async def test_everybody_hears_a_user_come_and_go_once_whatever_tabs_they_open() -> None:
    async with hubs(2) as (one, two):
        watcher = Client(one, '"watcher"')
        await heard(watcher, "watcher", "online")
        tabs = [Client(one, "42"), Client(two, "42"), Client(two, "42")]
        await heard(watcher, 42, "online")
        for tab in tabs[:2]:
            tab.leave()
        other = Client(two, '"other"')
        await heard(watcher, "other", "online")
        assert not [e for e in watcher.of("presence") if e["user_id"] == 42]
        tabs[2].leave()
        await heard(watcher, 42, "offline")
        other.leave()


async def test_coming_back_within_the_grace_period_on_another_node_shows_nothing() -> None:
    async with hubs(2) as (one, two):
        watcher = Client(one, '"watcher"')
        alice = Client(one, '"alice"')
        await heard(watcher, "alice", "online")
        alice.leave()
        again = Client(two, '"alice"')
        marker = Client(two, '"marker"')
        await heard(watcher, "marker", "online")
        marker.leave()
        await heard(watcher, "marker", "offline")  # a whole grace period later
        assert not [e for e in watcher.of("presence") if e["user_id"] == "alice"]
        again.leave()


async def test_a_node_that_was_empty_for_a_while_knows_who_is_online() -> None:
    async with hubs(2) as (one, two):
        tabs = [Client(one, '"alice"'), Client(one, '"bob"')]  # in one tick: both want to know who is online
        watcher = Client(two, '"watcher"')
        await heard(watcher, "bob", "online")
        for tab in tabs:
            tab.leave()
        late = Client(two, '"late"')
        await heard(watcher, "bob", "offline")
        asker = Client(one, None)
        asker.ask(op="get_presence", id=1)
        listed = await asker.until(lambda event: event.get("type") == "presence_list")
        assert listed["users"] == ["late", "watcher"]
        late.leave()


async def test_42_and_the_string_42_are_two_users_and_stay_what_they_are() -> None:
    async with hubs(1) as (hub,):
        Client(hub, "42"), Client(hub, '"42"')
        asker = Client(hub, None)
        await heard(asker, "42", "online")
        asker.ask(op="get_presence", id=1)
        listed = await asker.until(lambda e: e.get("type") == "presence_list")
        assert listed == {"op": "broadcast", "type": "presence_list", "users": ["42", 42]}
        assert (await asker.reply(1))["ok"]
        assert await hub.cluster.get_online_users() == ["42", 42]
        assert await hub.cluster.is_user_online(42) and not await hub.cluster.is_user_online(43)


async def test_a_room_tells_its_watchers_and_nobody_else() -> None:
    async with hubs(2, presence_broadcast="rooms") as (one, two):
        watcher, member, outsider = Client(one, '"w"'), Client(one, '"m"'), Client(one, '"o"')
        watcher.ask(op="join", room="r", id=1, presence=True)
        members = (await watcher.reply(1))["members"]
        assert members == {"count": 0, "users": [], "typing": []}
        await heard(watcher, "w", "online", "r")
        member.ask(op="join", room="r", id=1)
        await heard(watcher, "m", "online", "r")
        far = Client(two, "7")
        far.ask(op="join", room="r", id=1)
        await heard(watcher, 7, "online", "r")
        assert await one.cluster.room_members("r") == ["m", "w", 7]
        far.ask(op="leave", room="r", id=2)
        await heard(watcher, 7, "offline", "r")
        assert not member.of("presence") and not outsider.of("presence")


async def test_a_late_watcher_gets_the_roster_and_who_types_in_its_reply() -> None:
    async with hubs(2) as (one, two):
        early = Client(one, '"early"')
        early.ask(op="join", room="r", id=1, presence=True)
        await heard(early, "early", "online", "r")
        early.ask(op="typing", room="r", typing=True)
        late = Client(one, '"late"')
        late.ask(op="join", room="r", id=1)
        assert "members" not in await late.reply(1)
        await heard(early, "late", "online", "r")
        late.ask(op="join", room="r", id=2, presence=True)
        assert (await late.reply(2))["members"] == {"count": 2, "users": ["early", "late"], "typing": ["early"]}
        assert two.presence.is_followed("r") is False


async def test_only_members_may_ask_for_a_roster_and_modes_decide_about_everywhere() -> None:
    async with hubs(1, presence_broadcast="rooms") as (hub,):
        client = Client(hub, '"c"')
        client.ask(op="get_presence", id=1)
        assert (await client.reply(1))["code"] == "forbidden"
        client.ask(op="get_presence", room="r", id=2)
        assert (await client.reply(2))["code"] == "not_joined"
        client.ask(op="join", room="r", id=3)
        client.ask(op="get_presence", room="r", id=4)
        listed = await client.until(lambda e: e.get("type") == "presence_list")
        assert listed["room"] == "r" and (await client.reply(4))["ok"]
    async with hubs(1, presence_broadcast="none") as (hub,):
        client = Client(hub, '"c"')
        client.ask(op="join", room="r", id=1, presence=True)
        assert "members" not in await client.reply(1)
        client.ask(op="get_presence", room="r", id=2)
        assert (await client.reply(2))["code"] == "forbidden"
        assert not client.of("presence")


async def test_anonymous_connections_are_no_users() -> None:
    async with hubs(1) as (hub,):
        watcher = Client(hub, '"w"')
        await heard(watcher, "w", "online")
        anonymous = Client(hub, None)
        anonymous.ask(op="join", room="r", id=1, presence=True)
        assert (await anonymous.reply(1))["members"]["count"] == 0
        assert await hub.cluster.get_online_users() == ["w"]
        assert hub.counts.connections == 2


async def test_a_storm_of_joins_in_a_big_room_costs_writes_per_time_not_per_person() -> None:
    async with hubs(2, presence_broadcast="rooms") as (one, two):
        watcher = Client(one, '"watcher"')
        watcher.ask(op="join", room="r", id=1, presence=True)
        await watcher.reply(1)
        crowd = [Client(two, str(number)) for number in range(1000)]
        for client in crowd:
            client.ask(op="join", room="r")
        seen: set[object] = set()

        def everybody(event: dict[str, Any]) -> bool:
            if event.get("type") == "presence":
                seen.add(event["user_id"])
            elif event.get("type") == "presence_list":
                assert len(event["users"]) <= PAGE_USERS and event["count"] > PAGE_USERS
                seen.update(event["users"])
                return bool(event["count"] == 1001)
            return len(seen) == 1001

        await watcher.until(everybody)
        assert watcher.writes < 250, "a write per person up to 200, then four a second"
        watcher.ask(op="get_presence", room="r", id=2)
        page = await watcher.until(lambda e: e.get("type") == "presence_list")
        users, pages = page["users"], 1
        while "next" in page:
            watcher.ask(op="get_presence", room="r", after=page["next"])
            page = await watcher.until(lambda e: e.get("type") == "presence_list")
            users, pages = users + page["users"], pages + 1
        assert len(users) == 1001 and set(users) == {"watcher", *range(1000)} and pages == 6


async def test_a_node_that_is_killed_takes_its_users_along_and_no_others() -> None:
    async with hubs(3) as (one, two, three):
        watcher = Client(one, '"watcher"')
        Client(two, '"gone"'), Client(two, '"stays"'), Client(three, '"stays"')
        await heard(watcher, "gone", "online")
        await heard(watcher, "stays", "online")
        two.broker.bus.kill(two.broker)  # type: ignore[attr-defined]  # a memory broker
        await heard(watcher, "gone", "offline")
        assert not watcher.of("presence")
        assert await one.cluster.get_online_users() == ["stays", "watcher"]


def test_pages_are_sorted_and_say_where_the_next_begins() -> None:
    users = [f'"{number:04}"' for number in range(450)]
    page, last = page_of(users, None)
    assert page == users[:200] and last == users[199]
    page, last = page_of(users, last)
    page, last = page_of(users, last)
    assert page == users[400:] and last is None


async def test_the_list_for_those_who_missed_something_is_made_once_for_all() -> None:
    async with hubs(1) as (hub,):
        one, other = Client(hub, '"one"'), Client(hub, '"other"')
        await heard(one, "other", "online")
        first = hub.presence.told(None, one)
        assert first is not None and orjson.loads(first)["users"] == ["one", "other"]
        assert hub.presence.told(None, other) is first
        third = Client(hub, '"third"')
        await heard(one, "third", "online")
        second = hub.presence.told(None, one)
        assert second is not None and orjson.loads(second)["users"] == ["one", "other", "third"]
        assert hub.presence.told("never followed", one) is None
        third.leave()
        assert hub.presence.told(None, third) is None, "no watcher any more"
        one.leave()
        other.leave()
