"""Checks a PostgreSQL source without changing it."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from exclave.errors import ExclaveError
from exclave.registers.base import Finding
from exclave.registers.postgres import environment, stillness
from exclave.registers.postgres.connection import Session, Source

SUPPORTED = range(13, 19)
_SKEW_SECONDS = 2.0
_SENDER_TIMEOUT_MS = 30_000


def examine(source: Source) -> list[Finding]:
    """All findings; the first that is `fail` says why nothing after it could be looked at."""
    try:
        session = source.replication()
    except ExclaveError as error:
        return [Finding(error.id, "fail", str(error), error.hint or "exclave explain " + error.id)]
    try:
        return [*_by_replication(session), *_by_sql(source), *_surroundings(source, session)]
    except ExclaveError as error:
        return [Finding(error.id, "fail", str(error), error.hint or "exclave explain " + error.id)]
    finally:
        session.close()


def _by_replication(session: Session) -> list[Finding]:
    major = session.server_version // 10000
    version = session.show("server_version")
    found = [
        Finding("source-reachable", "ok", f"PostgreSQL {version} answers and the role may replicate"),
        _judge(
            Finding(
                "source-version",
                "fail",
                f"version {major}: supported are 13 to 18",
                "upgrade the server, or a newer exclave",
            ),
            fine=major in SUPPORTED,
        ),
    ]
    checks = session.show("data_checksums") == "on"
    found.append(
        _judge(
            Finding(
                "source-checksums",
                "warn",
                f"data checksums {'on' if checks else 'off'}: a page damaged on home's disk is copied unnoticed",
                "pg_checksums --enable (server stopped)",
            ),
            fine=checks,
        )
    )
    level = session.show("wal_level")
    found.append(
        _judge(
            Finding(
                "source-wal-level",
                "fail",
                f"wal_level {level}: a base backup needs replica or logical",
                "ALTER SYSTEM SET wal_level = 'replica', then restart",
            ),
            fine=level in {"replica", "logical"},
        )
    )
    full = session.show("full_page_writes") == "on"
    found.append(
        _judge(
            Finding(
                "source-full-page-writes",
                "warn",
                f"full_page_writes {'on' if full else 'off'}: a backup of a standby is refused",
                "ALTER SYSTEM SET full_page_writes = on",
            ),
            fine=full,
        )
    )
    return found


def _by_sql(source: Source) -> list[Finding]:
    try:
        with source.sql() as connection:
            skew = _skew_seconds(connection)
            unseen = _files_unseen(connection)
            settings = {row["name"]: row["setting"] for row in environment.rows(connection, _NUMBERS)}
            free = _free_senders(connection, int(settings["max_wal_senders"]))
    except (ExclaveError, psycopg.Error, KeyError) as error:
        text = source.redacted(str(error))
        return [
            Finding(
                "source-catalogues-unread",
                "warn",
                f"no ordinary connection: settings, roles, extensions stay unknown ({text})",
                "GRANT CONNECT, GRANT pg_read_all_settings TO the role, and a line in pg_hba.conf",
            )
        ]
    timeout = int(settings["wal_sender_timeout"])
    return [
        _judge(
            Finding(
                "source-clock",
                "warn",
                f"the server's clock differs by {skew:+.3f} s: instants of snapshots are the server's",
                "check time synchronisation (timedatectl) on both machines",
            ),
            fine=abs(skew) <= _SKEW_SECONDS,
        ),
        _judge(
            Finding(
                "source-senders",
                "fail",
                f"{free} of {settings['max_wal_senders']} WAL senders free: a backup takes one",
                "ALTER SYSTEM SET max_wal_senders, then restart",
            ),
            fine=free > 0,
        ),
        _judge(
            Finding(
                "source-slots",
                "warn",
                f"max_replication_slots {settings['max_replication_slots']}: a long backup may lose its WAL",
                "ALTER SYSTEM SET max_replication_slots = 10, then restart",
            ),
            fine=int(settings["max_replication_slots"]) > 0,
        ),
        _judge(
            Finding(
                "source-sender-timeout",
                "warn",
                f"wal_sender_timeout {timeout} ms: a short pause of ours ends the backup",
                "ALTER SYSTEM SET wal_sender_timeout = '60s'",
            ),
            fine=timeout == 0 or timeout >= _SENDER_TIMEOUT_MS,
        ),
        *unseen,
    ]


def _surroundings(source: Source, session: Session) -> list[Finding]:
    """What of the environment cannot be read, and what of the source never travels."""
    found = environment.read(source, session)
    result = [
        Finding(
            "source-environment-unread",
            "warn",
            f"{lack['what']}: {lack['why']}",
            "GRANT pg_read_all_settings, pg_read_all_stats TO the role",
        )
        for lack in found["unread"]
    ]
    unlogged = [
        f"{row['name']}.{name}" for row in found.get("databases", []) for name in row.get("unlogged", [])
    ]
    if unlogged:
        result.append(
            Finding(
                "source-unlogged",
                "warn",
                f"{len(unlogged)} unlogged tables will be empty abroad: {', '.join(unlogged[:5])}",
                "ALTER TABLE ... SET LOGGED for what must survive",
            )
        )
    return result


_NUMBERS = """SELECT name, setting FROM pg_settings
    WHERE name IN ('max_wal_senders', 'max_replication_slots', 'wal_sender_timeout')"""


def _skew_seconds(connection: psycopg.Connection[Any]) -> float:
    """The server's clock minus ours, as of the quickest of three answers."""
    best = (float("inf"), 0.0)
    for _ in range(3):
        asked = time.time()
        row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        answered = time.time()
        best = min(best, (answered - asked, (row[0] if row else 0.0) - (asked + answered) / 2))
    return best[1]


def _files_unseen(connection: psycopg.Connection[Any]) -> list[Finding]:
    """Only what can be changed: an idle standby, or an old server, is read each time anyway."""
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    if connection.info.server_version < stillness.OLDEST_SERVER or row is None or row[0]:
        return []
    if stillness.files(connection) is not None:
        return [Finding("source-stillness", "ok", "a cluster in which nothing happened is not read again")]
    return [
        Finding(
            "source-files-unseen",
            "warn",
            "each snapshot reads the whole cluster, also when nothing happened: the role may not list its files",
            "GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean) TO the role",
        )
    ]


def _free_senders(connection: psycopg.Connection[Any], most: int) -> int:
    row = connection.execute("SELECT count(*) FROM pg_stat_replication").fetchone()
    used = int(row[0]) if row else 0
    return most - used + 1  # one of those counted is this very examination's session


def _judge(finding: Finding, *, fine: bool) -> Finding:
    """As it is, or when all is well only its first clause."""
    return Finding(finding.id, "ok", finding.text.partition(": ")[0]) if fine else finding
