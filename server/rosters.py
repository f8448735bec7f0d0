"""Who is there, as clients are told it: in pages. Pure."""

from __future__ import annotations

from server import events

PAGE_USERS = 200
"""Users of a room in one ``presence_list``; and more differences than that are told as a list."""
PAGE_EVERYWHERE = 5000
"""Users of everywhere in one; the reference has no pages, so that is many."""


def page_of(users: list[str], after: str | None, limit: int = PAGE_USERS) -> tuple[list[str], str | None]:
    """One page of a sorted roster, and the last user of it if more follow."""
    rest = users if after is None else [user for user in users if user > after]
    page = rest[:limit]
    return page, page[-1] if len(rest) > len(page) else None


def presence_list(users: list[str], room: str | None, after: str | None) -> bytes:
    """The answer to ``get_presence``. Everywhere is told in the reference's shape, a room in pages."""
    if room is None:
        page, last = page_of(users, after, PAGE_EVERYWHERE)
        return events.presence_list(page, next_user=last)
    page, last = page_of(users, after)
    return events.presence_list(page, room, len(users), last)
