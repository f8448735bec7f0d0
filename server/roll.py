"""Who is connected to a node: by path, by user and by session."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from server.connection import Connection
from server.payload import CONTROL, Origin
from server.registry import Registry


class Roll:
    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.paths: Registry[str, Connection] = Registry()
        self.users: Registry[str, Connection] = Registry()
        self.sessions: Registry[str, Connection] = Registry()
        self.raw_paths: Registry[str, Connection] = Registry()
        self.raw_users: Registry[str, Connection] = Registry()
        """Of connections that speak the application's own protocol and are told nothing of ours."""
        self.indirect: set[Connection] = set()
        """Connections that are not :attr:`server.connection.Connection.direct`: mostly few."""

    def enter(self, connection: Connection) -> None:
        """It has come, and says itself who and where it is."""
        paths, users = self._tables(connection)
        paths.add(connection.path, connection)
        self.sessions.add(connection.session, connection)
        if connection.user is not None:
            users.add(connection.user, connection)
        self.turned(connection)

    def turned(self, connection: Connection) -> None:
        """Whether it is direct may have changed."""
        if connection.direct:
            self.indirect.discard(connection)
        else:
            self.indirect.add(connection)

    def strike(self, connection: Connection) -> None:
        """It has gone."""
        for table in (*self._tables(connection), self.sessions):
            table.discard(connection)
        self.indirect.discard(connection)

    def _tables(self, connection: Connection) -> tuple[Registry[str, Connection], Registry[str, Connection]]:
        return (self.raw_paths, self.raw_users) if connection.raw else (self.paths, self.users)

    def addressed(self, channel: str) -> list[Connection]:
        """Whom a signal is for: a user's connections, or all of this node's."""
        if channel == CONTROL:
            return self.everyone()
        user = channel.removeprefix("user:")
        return [*self.users.members(user), *self.raw_users.members(user)]

    def at(self, path: str) -> AbstractSet[Connection]:
        """The connections on a path, which is either a raw one or not."""
        return self.paths.members(path) or self.raw_paths.members(path)

    def by_origin(self, origin: Origin | None, members: Iterable[Connection]) -> list[Connection]:
        """The connection that caused a signal, if it is one of these."""
        if origin is None or origin.node != self.node_id:
            return []
        return [connection for connection in members if connection.id == origin.connection]

    def origin(self, connection: Connection | None) -> Origin | None:
        return None if connection is None else Origin(self.node_id, connection.id)

    def everybody(self) -> AbstractSet[Connection]:
        """The connections that hear of everywhere."""
        if len(self.paths) == 1:
            return self.paths.members("/ws")
        return {connection for path in self.paths for connection in self.paths.members(path)}

    def everyone(self) -> list[Connection]:
        """All connections, as they are now."""
        return [c for paths in (self.paths, self.raw_paths) for path in paths for c in paths.members(path)]
