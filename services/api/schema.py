"""The schema of the SQLite file, and how it is opened. A damaged file, or one of another version, is replaced."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

log = logging.getLogger(__name__)

VERSION = 2
# the one row of `birth` identifies the file: a file that is made again is another database
SCHEMA = f"""
BEGIN;
CREATE TABLE birth (id TEXT NOT NULL);
INSERT INTO birth VALUES (lower(hex(randomblob(8))));
CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY,
    created_at REAL NOT NULL,
    status TEXT NOT NULL,
    visible INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    project TEXT NOT NULL,
    state TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX jobs_by_age ON jobs (project, visible, created_at, job_id);
CREATE TABLE messages (
    job_id TEXT NOT NULL,
    id TEXT NOT NULL,
    position INTEGER NOT NULL,
    at REAL NOT NULL,
    level TEXT NOT NULL,
    type TEXT NOT NULL,
    message TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (job_id, id)
) WITHOUT ROWID;
CREATE INDEX messages_in_order ON messages (job_id, position, id);
PRAGMA user_version = {VERSION};
COMMIT;
"""
# Made beside the others, without a new version, which would have every database made anew.
# `files`: what the ledger holds of the Files API, as far as this database has read it, and the result files of jobs. A
# row of a deleted file stays (`gone`), as a place in a list. `resulted`: jobs whose result file was looked for.
LATER = """
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    file_id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    purpose TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,
    gone INTEGER NOT NULL,
    filename TEXT NOT NULL,
    size INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_age ON files (project, gone, created_at, file_id);
CREATE TABLE IF NOT EXISTS resulted (job_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_by_end ON jobs (visible, settled);
"""


def open_or_make(path: Path) -> sqlite3.Connection:
    """A connection to a sound database of this version. Any other file at `path` is deleted first."""
    if path.exists() and (problem := _problem(path)):
        log.warning("the database is replaced by a new one", extra={"reason": problem})
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    connection = connect(path)
    if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
        connection.executescript(SCHEMA)
    connection.executescript(LATER)
    return connection


def _problem(path: Path) -> str | None:
    try:
        connection = connect(path)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version != VERSION and (version, tables) != (0, 0):
                return f"schema version {version}"
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            return None if found == "ok" else "damaged"
        finally:
            connection.close()
    except sqlite3.OperationalError:
        raise  # it is locked, or we may not read it: deleting it would not help
    except sqlite3.DatabaseError:
        return "damaged"


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    # a power cut may take the last transactions: the ledger still has them
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection
