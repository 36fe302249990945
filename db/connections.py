"""Connections that stay open between units of work.

SQLAlchemy's pool makes a connection object at every checkout and cleans up after it at every return, which costs as
much as a small transaction. Here such an object is used again, by one unit of work at a time, until one of them fails:
then it goes back to the pool, which knows what to do with it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

import sqlalchemy as sa

IDLE_S = 60.0
"""One that nobody needed for so long goes back to the pool."""

_SINCE = "micronova-since"


class Connections:
    """The idle connections of one engine, at most `most`. One object serves every thread.

    One that is older than `replaced_after_s` goes back to the pool too, which is to make another in its place.
    """

    def __init__(self, engine: sa.Engine, most: int, replaced_after_s: float = math.inf) -> None:
        self.engine, self._most, self._replaced_after_s = engine, most, replaced_after_s
        self._idle: deque[tuple[sa.Connection, float]] = deque()

    def take(self) -> sa.Connection:
        """A connection in no transaction, for its taker alone."""
        while self._idle:
            try:
                connection, since = self._idle.pop()
            except IndexError:  # another thread had the last one
                break
            if time.monotonic() - since < IDLE_S:
                return connection
            connection.close()
        made = self.engine.connect()
        made.info.setdefault(_SINCE, time.monotonic())
        return made

    def give_back(self, connection: sa.Connection) -> None:
        """Keep one that is in no transaction."""
        now = time.monotonic()
        if len(self._idle) < self._most and now - connection.info[_SINCE] < self._replaced_after_s:
            self._idle.append((connection, now))
        else:
            connection.close()

    def give_up(self, connection: sa.Connection) -> None:
        """Let go of one that failed, and of the idle ones where it has lost its server, as they have too."""
        lost = connection.invalidated
        connection.close()
        if lost:
            self.close()

    def close(self) -> None:
        """Let go of the idle ones."""
        while self._idle:
            try:
                connection, _ = self._idle.pop()
            except IndexError:
                return
            connection.close()


class Loan:
    """A connection for one unit of work: a transaction that its end commits, or just look-ups."""

    __slots__ = ("_begins", "_begun", "_connection", "_connections", "_over")

    def __init__(self, connections: Connections, *, begins: bool, over: Callable[[BaseException | None], None]) -> None:
        """over: called when all is over, with what went wrong; it may raise something better."""
        self._connections, self._begins, self._over = connections, begins, over
        self._connection: sa.Connection | None = None
        self._begun: sa.RootTransaction | None = None

    def __enter__(self) -> sa.Connection:
        try:
            self._connection = self._connections.take()
            if self._begins:
                self._begun = self._connection.begin()
        except BaseException as exc:
            self._end(exc)
            raise
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if self._begun is not None:
                self._begun.__exit__(kind, error, at)
            elif self._connection is not None and self._connection.in_transaction():
                self._connection.rollback()
        except BaseException as exc:
            self._end(exc)
            raise
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if self._connection is not None and error is None:
            self._connections.give_back(self._connection)
        elif self._connection is not None:
            self._connections.give_up(self._connection)
        self._over(error)
