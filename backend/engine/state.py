"""The store of what is meant: one SQLite file, written by one thread.

Writes are queued and committed together: whoever needs the promise that it survives a crash awaits the future that a
write returns, the rest goes on. A record that cannot be read is set aside (table `quarantine`) and reported; the rest
loads, because one bad record must never keep the engine from starting.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from backend.engine.record import ContainerRecord, Status
from backend.errors import ServerError, Unavailable
from backend.network.records import Network

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE containers (id TEXT PRIMARY KEY, name TEXT NOT NULL, image TEXT NOT NULL, created INTEGER NOT NULL,
                         config BLOB NOT NULL, status BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE networks (id TEXT PRIMARY KEY, name TEXT NOT NULL, config BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE quarantine (kind TEXT NOT NULL, id TEXT NOT NULL, reason TEXT NOT NULL, data BLOB);
"""
_DELETE = {"containers": "DELETE FROM containers WHERE id=?", "networks": "DELETE FROM networks WHERE id=?"}

T = TypeVar("T")
Write = tuple[str, tuple[Any, ...]]


@dataclass(slots=True)
class Loaded:
    """All that was kept. `damaged`: a line for people for each record that could not be read."""

    containers: list[tuple[ContainerRecord, Status]] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)
    meta: dict[str, bytes] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Job:
    writes: list[Write]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class State:
    """The open store. Its methods belong to the event loop; the database belongs to the thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failure = ""

    def open(self) -> Loaded:
        """Open or make the file, read all of it, and start the writer. Raises :class:`Unavailable`."""
        try:
            database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._prepare(database)
            loaded = _load(database)
        except sqlite3.Error as error:
            raise Unavailable(f"the engine's state {self._path} cannot be opened: {error}. "
                              "Move it away to start with an empty one; images and volumes stay.") from error
        self._thread = threading.Thread(target=self._run, args=(database,), name="state", daemon=True)
        self._thread.start()
        return loaded

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("PRAGMA busy_timeout=5000")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise Unavailable(f"the engine's state {self._path} was written by a newer Slipway (schema {version}, "
                              f"this one knows {SCHEMA_VERSION}): install that version again")
        if version == 0:
            database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")

    def close(self) -> None:
        """Commit what is queued and close the file."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _run(self, database: sqlite3.Connection) -> None:
        while True:
            batch = [self._jobs.get()]
            while not self._jobs.empty():
                batch.append(self._jobs.get())
            jobs = [job for job in batch if job is not None]
            self._commit(database, jobs)
            if None in batch:
                database.close()
                return

    @staticmethod
    def _commit(database: sqlite3.Connection, jobs: list[_Job]) -> None:
        error: sqlite3.Error | None = None
        try:
            database.execute("BEGIN IMMEDIATE")
            for job in jobs:
                for sql, values in job.writes:
                    database.execute(sql, values)
            database.execute("COMMIT")
        except sqlite3.Error as problem:
            error = problem
            if database.in_transaction:
                database.execute("ROLLBACK")
        for job in jobs:
            if not job.loop.is_closed():
                job.loop.call_soon_threadsafe(_settle, job.done, error)

    def _write(self, *writes: Write) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if self._thread is None:
            done.set_exception(Unavailable("the engine is closing"))
        else:
            self._jobs.put(_Job(list(writes), loop, done))
        done.add_done_callback(_seen)
        return done

    def put_container(self, record: ContainerRecord, status: Status) -> asyncio.Future[None]:
        """Keep a new or changed container. Await it for the promise that it is on disk."""
        return self._write(("INSERT OR REPLACE INTO containers VALUES (?,?,?,?,?,?)",
                            (record.id, record.name, record.image, record.created,
                             msgspec.json.encode(record), msgspec.json.encode(status))))

    def put_status(self, container: str, status: Status) -> asyncio.Future[None]:
        """Keep how a container is."""
        return self._write(("UPDATE containers SET status=? WHERE id=?", (msgspec.json.encode(status), container)))

    def drop_container(self, container: str) -> asyncio.Future[None]:
        """Forget a container."""
        return self._write(("DELETE FROM containers WHERE id=?", (container,)))

    def put_network(self, network: Network) -> asyncio.Future[None]:
        """Keep a network."""
        return self._write(("INSERT OR REPLACE INTO networks VALUES (?,?,?)",
                            (network.id, network.name, msgspec.json.encode(network))))

    def drop_network(self, network: str) -> asyncio.Future[None]:
        """Forget a network."""
        return self._write(("DELETE FROM networks WHERE id=?", (network,)))

    def put_meta(self, key: str, value: bytes) -> asyncio.Future[None]:
        """Keep one value of the engine itself."""
        return self._write(("INSERT OR REPLACE INTO meta VALUES (?,?)", (key, value)))


def _settle(done: asyncio.Future[None], error: sqlite3.Error | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(ServerError(f"the engine's state could not be written: {error}"))


def _seen(done: asyncio.Future[None]) -> None:
    """A write that nobody awaits must still be heard of when it fails."""
    if not done.cancelled() and done.exception() is not None:
        import logging

        logging.getLogger("slipway.state").error("%s", done.exception())


def _load(database: sqlite3.Connection) -> Loaded:
    loaded = Loaded()
    status_decoder = msgspec.json.Decoder(Status)
    record_decoder = msgspec.json.Decoder(ContainerRecord)

    def read(table: str, identity: str, data: bytes, build: Callable[[], T]) -> T | None:
        try:
            return build()
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            loaded.damaged.append(f"{table[:-1]} {identity[:12]} could not be read and was set aside: {error}")
            database.execute("INSERT INTO quarantine VALUES (?,?,?,?)", (table[:-1], identity, str(error), data))
            database.execute(_DELETE[table], (identity,))
            return None

    for identity, config, status in database.execute("SELECT id, config, status FROM containers").fetchall():
        pair = read("containers", identity, config,
                    lambda c=config, s=status: (record_decoder.decode(c), status_decoder.decode(s)))  # type: ignore[misc]
        if pair is not None:
            loaded.containers.append(pair)
    for identity, config in database.execute("SELECT id, config FROM networks").fetchall():
        network = read("networks", identity, config,
                       lambda c=config: msgspec.json.decode(c, type=Network))  # type: ignore[misc]
        if network is not None:
            loaded.networks.append(network)
    loaded.meta = dict(database.execute("SELECT key, value FROM meta").fetchall())
    loaded.containers.sort(key=lambda pair: pair[0].created)
    return loaded
