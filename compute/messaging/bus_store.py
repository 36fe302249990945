"""The embedded bus's queues: one SQLite file shared by the processes of one machine.

Pure storage: it knows queues, bodies and endpoints, but neither oslo.messaging nor how a reader is woken.
A message belongs to one queue; a queue exists while it holds a message. An endpoint is a live reader: it binds the
shared queues it reads (for wake-ups and fanout) and owns one private queue (fanout copies and replies).
"""

import fcntl
import logging
import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LOG = logging.getLogger(__name__)

APPLICATION_ID = 0x6D6E6273  # "mnbs", so that no other SQLite file is taken for a bus
SCHEMA_VERSION = 1
MAX_MESSAGE_BYTES = 2 * 1024 * 1024
# A queue nobody reads must not fill the disk. Refusing the sender loses nothing that was accepted before.
MAX_QUEUE_LENGTH = 100_000
BUSY_TIMEOUT_S = 10.0
_BUSY_PAUSE_S = 0.0005
# After a burst the write-ahead log is cut back to this size.
JOURNAL_SIZE_LIMIT_BYTES = 16 * 1024 * 1024
PRIVATE = "private:"

_SCHEMA = """
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    seq INTEGER NOT NULL,
    expires_at REAL,
    body TEXT NOT NULL,
    UNIQUE (queue, seq)
);
CREATE TABLE bindings (
    queue TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    PRIMARY KEY (queue, endpoint)
) WITHOUT ROWID;
"""

# The ends of a queue are index seeks, so a long queue costs its senders no more than a short one. Readers take from
# the old end, hence newest - oldest + 1 is the length, at most too high by messages purged from the middle.
_PUT = """
INSERT INTO messages (queue, seq, expires_at, body)
WITH ends AS (SELECT (SELECT max(seq) FROM messages WHERE queue = :queue) AS newest,
                     (SELECT min(seq) FROM messages WHERE queue = :queue) AS oldest)
SELECT :queue, coalesce(newest, 0) + 1, :expires_at, :body FROM ends WHERE coalesce(newest - oldest + 1, 0) < :room
"""
_TAKE = """
DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE queue = ? ORDER BY seq LIMIT ?)
RETURNING seq, expires_at, body
"""


class BusStoreError(Exception):
    """The bus file could not do what was asked; the text names the file."""


class BusFileError(BusStoreError):
    """The bus file cannot be opened: no directory, not a bus, or of another version."""


class MessageTooLargeError(BusStoreError):
    """A message is over MAX_MESSAGE_BYTES."""


class QueueFullError(BusStoreError):
    """A queue holds as many messages as it may."""


def private_queue(endpoint: str) -> str:
    """Name the queue that only this endpoint reads."""
    return PRIVATE + endpoint


class BusStore:
    """Queues in one SQLite file, created on first use with mode 0600; safe for many threads and processes.

    One connection behind one lock serves the whole process: writers are serial in SQLite anyway, a lock hands over
    faster than SQLite's busy handler sleeps, and no thread leaves a connection behind when it ends.
    """

    def __init__(self, path: Path, max_queue_length: int = MAX_QUEUE_LENGTH) -> None:
        self.path = path
        self._max_queue_length = max_queue_length
        self._lock = threading.Lock()
        self._connection = _open(path)

    def put(self, queue: str, body: str, expires_at: float | None = None) -> list[str]:
        """Append a message; durable on return. Return the endpoints that read the queue, to be woken.

        `expires_at` is a time.time(); None never expires. Raises MessageTooLargeError, QueueFullError or, when the
        file cannot be written, BusStoreError; the message is then not queued.
        """
        self._check_size(body)
        with self._writing() as connection:
            if not self._insert(connection, queue, body, expires_at):
                raise QueueFullError(
                    f"queue {queue} of {self.path} is full with {self._max_queue_length} messages: is its reader down?"
                )
            return _bound(connection, queue)

    def publish(self, queue: str, body: str, expires_at: float | None = None) -> list[str]:
        """Give every endpoint bound to the queue its own copy, and return those endpoints.

        An endpoint whose private queue is full is left out, and named in the log: one stuck reader must not keep
        the others from hearing.
        """
        self._check_size(body)
        reached = []
        with self._writing() as connection:
            for endpoint in _bound(connection, queue):
                if self._insert(connection, private_queue(endpoint), body, expires_at):
                    reached.append(endpoint)
                else:
                    LOG.warning("Fanout on %s skips reader %s: it has stopped reading", queue, endpoint)
        return reached

    def take(self, queues: Sequence[str], limit: int) -> list[str]:
        """Remove up to `limit` messages and return their bodies, oldest first, earlier queues first.

        A message is taken by exactly one taker. Expired messages are removed and dropped.
        """
        ready = self._ready(queues)
        if not ready:
            return []
        rows: list[tuple[int, float | None, str]] = []
        with self._writing() as connection:
            for queue in ready:
                rows += sorted(connection.execute(_TAKE, (queue, limit - len(rows))).fetchall())
        now = time.time()
        live = [body for _, expires_at, body in rows if expires_at is None or expires_at > now]
        if len(live) < len(rows):
            LOG.info("Dropped %d messages of %s: their callers have timed out", len(rows) - len(live), ready)
        return live

    def bind(self, endpoint: str, queues: Iterable[str]) -> None:
        """Record that a live endpoint reads these queues."""
        with self._writing() as connection:
            connection.executemany("INSERT OR IGNORE INTO bindings VALUES (?, ?)", [(q, endpoint) for q in queues])

    def forget(self, endpoint: str) -> None:
        """Remove an endpoint's bindings and its private queue; succeed if there are none."""
        with self._writing() as connection:
            connection.execute("DELETE FROM bindings WHERE endpoint = ?", (endpoint,))
            connection.execute("DELETE FROM messages WHERE queue = ?", (private_queue(endpoint),))

    def endpoints(self) -> set[str]:
        """Name every endpoint that has a binding or a private message."""
        with self._reading():
            bound = self._execute_patiently("SELECT endpoint FROM bindings").fetchall()
            queues = self._execute_patiently(
                "SELECT DISTINCT queue FROM messages WHERE queue >= ? AND queue < ?", (PRIVATE, PRIVATE + "\x7f")
            ).fetchall()
        return {endpoint for (endpoint,) in bound} | {queue.removeprefix(PRIVATE) for (queue,) in queues}

    def purge_expired(self) -> int:
        """Remove expired messages nobody came to take, and return how many they were."""
        with self._writing() as connection:
            return connection.execute("DELETE FROM messages WHERE expires_at <= ?", (time.time(),)).rowcount

    def length(self, queue: str) -> int:
        """Count the messages that wait in a queue."""
        with self._reading():
            (count,) = self._execute_patiently("SELECT count(*) FROM messages WHERE queue = ?", (queue,)).fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file; every later use raises BusStoreError. Closing twice is fine."""
        with self._lock:
            self._connection.close()

    def _check_size(self, body: str) -> None:
        size_bytes = len(body) if body.isascii() else len(body.encode())
        if size_bytes > MAX_MESSAGE_BYTES:
            raise MessageTooLargeError(
                f"a message of {size_bytes} bytes is over the bus's limit of {MAX_MESSAGE_BYTES} bytes"
            )

    def _insert(self, connection: sqlite3.Connection, queue: str, body: str, expires_at: float | None) -> bool:
        row = {"queue": queue, "expires_at": expires_at, "body": body, "room": self._max_queue_length}
        return connection.execute(_PUT, row).rowcount == 1

    def _ready(self, queues: Sequence[str]) -> list[str]:
        """Choose the queues that hold anything; a read, so an idle wake-up never takes the write lock."""
        probes = ", ".join("EXISTS (SELECT 1 FROM messages WHERE queue = ?)" for _ in queues)
        with self._reading():
            held = self._execute_patiently(f"SELECT {probes}", tuple(queues)).fetchone()
        return [queue for queue, holds in zip(queues, held, strict=True) if holds]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as exc:
                raise BusStoreError(f"cannot read the bus {self.path}: {exc}") from exc

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of the block or nothing."""
        with self._lock:
            try:
                # IMMEDIATE waits for its turn at the start; a deferred transaction fails where it turns into a writer.
                self._execute_patiently("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as exc:
                raise BusStoreError(f"cannot write the bus {self.path}: {exc}") from exc
            finally:
                self._roll_back_unfinished()

    def _execute_patiently(self, sql: str, parameters: Sequence[str] = ()) -> sqlite3.Cursor:
        """Execute the first statement of a transaction, waiting its turn among the processes for BUSY_TIMEOUT_S.

        SQLite's own waiting backs off to 100 ms a turn: six busy senders then starve one another for over a second.
        """
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                return self._connection.execute(sql, parameters)
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(_BUSY_PAUSE_S * (0.5 + random.random()))  # noqa: S311 - only to fall out of step

    def _roll_back_unfinished(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as exc:
            LOG.warning("Cannot roll back on the bus %s: %s", self.path, exc)


def _bound(connection: sqlite3.Connection, queue: str) -> list[str]:
    rows = connection.execute("SELECT endpoint FROM bindings WHERE queue = ?", (queue,)).fetchall()
    return [endpoint for (endpoint,) in rows]


def _open(path: Path) -> sqlite3.Connection:
    """Open the file, creating the schema in a new one; raise BusFileError before changing a file that is no bus."""
    with _alone_in(path.parent):
        try:
            if not path.exists():
                # Never open an existing file this way: closing it would drop this process's SQLite locks on it.
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=False
            )
        except (OSError, sqlite3.Error) as exc:
            raise BusFileError(f"cannot open the bus {path}: {exc}") from exc
        try:
            _prepare(connection, path)
        except sqlite3.Error as exc:
            connection.close()
            raise BusFileError(f"{path} cannot serve as a bus: {exc}") from exc
        except BusFileError:
            connection.close()
            raise
    return connection


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Hold the directory's lock: two processes that create one file and switch its journal mode collide."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as exc:
        raise BusFileError(f"cannot open the bus's directory {directory}: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    fresh = (application_id, version, tables) == (0, 0, 0)
    if not fresh and application_id != APPLICATION_ID:
        raise BusFileError(f"{path} is an SQLite file, but not a message bus")
    if not fresh and version != SCHEMA_VERSION:
        raise BusFileError(
            f"{path} is a bus of version {version}, this release speaks version {SCHEMA_VERSION}: "
            "stop its users and remove it"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    # NORMAL loses at most the last doorbells when the machine loses power, nothing when a process is killed, and it
    # syncs only at checkpoints. OFF would save that one sync in a thousand pages and risk a corrupt file; FULL would
    # pay one a message for doorbells, whose work orders are in the database.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_SIZE_LIMIT_BYTES}")
    if fresh:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    connection.execute("PRAGMA busy_timeout = 0")  # from here on BusStore waits itself
