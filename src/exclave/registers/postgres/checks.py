"""Looks whether a started cluster is sound: it answers, is on its own timeline, its indexes fit its tables."""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from exclave.registers.base import Finding
from exclave.registers.postgres.environment import rows

_INDEXES = """SELECT c.oid::bigint AS oid, c.oid::regclass::text AS name FROM pg_class c
    JOIN pg_index i ON i.indexrelid = c.oid JOIN pg_am a ON a.oid = c.relam
    WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisvalid AND i.indisready
    ORDER BY c.relpages"""
_STALE = """SELECT datname AS name FROM pg_database
    WHERE datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid) ORDER BY 1"""


def after_start(address: str, environment: dict[str, Any], *, seconds: float = 60.0) -> list[Finding]:
    """What can be said of the server at `address` (as a superuser). Spends about `seconds` on indexes.

    Nothing is left changed: where `amcheck` is not installed in a database, it is for one transaction, then undone.
    """
    found: list[Finding] = []
    deadline = time.monotonic() + seconds
    try:
        with psycopg.connect(address, autocommit=True) as connection:
            found += _server(connection, environment)
            names = [
                row["name"]
                for row in rows(connection, "SELECT datname AS name FROM pg_database WHERE datallowconn")
            ]
            if connection.info.server_version >= 150000:
                found += _collations(connection)
        found += [_indexes(make_conninfo(address, dbname=name), name, deadline) for name in names]
    except psycopg.Error as error:
        found.append(Finding("cluster-unanswering", "fail", str(error).strip(), "see the server's log"))
    return found


def _server(connection: psycopg.Connection[Any], environment: dict[str, Any]) -> list[Finding]:
    state = rows(
        connection,
        """SELECT pg_is_in_recovery() AS recovering, current_setting('server_version') AS version,
           (SELECT system_identifier::text FROM pg_control_system()) AS system,
           ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int AS timeline""",
    )[0]
    found = [Finding("cluster-answers", "ok", f"PostgreSQL {state['version']} answers queries")]
    if state["recovering"]:
        found.append(
            Finding(
                "cluster-recovering", "fail", "it is still in recovery: read-only", "see the server's log"
            )
        )
    before = environment.get("timeline")
    if before is not None and state["timeline"] <= int(before):
        found.append(
            Finding(
                "timeline-of-home",
                "fail",
                f"it is on home's timeline {before}",
                "stop it: it could split from home",
            )
        )
    else:
        found.append(Finding("timeline-own", "ok", f"on timeline {state['timeline']} of its own"))
    expected = environment.get("system_identifier")
    if expected is not None and state["system"] != expected:
        found.append(
            Finding(
                "cluster-another", "fail", f"system {state['system']} is not {expected}", "exclave verify"
            )
        )
    return found


def _collations(connection: psycopg.Connection[Any]) -> list[Finding]:
    stale = [row["name"] for row in rows(connection, _STALE)]
    if not stale:
        return [Finding("collations-same", "ok", "text is sorted as at home")]
    return [
        Finding(
            "collations-differ",
            "warn",
            f"databases {', '.join(stale)} were made under another version of their collation: "
            "indexes on text may answer wrongly",
            "REINDEX DATABASE ..., then ALTER DATABASE ... REFRESH COLLATION VERSION",
        )
    ]


def _indexes(address: str, name: str, deadline: float) -> Finding:
    checked = 0
    with psycopg.connect(address) as connection:
        try:
            if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'amcheck'").fetchone() is None:
                connection.execute("CREATE EXTENSION amcheck")
            schema = connection.execute(
                """SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                   WHERE e.extname = 'amcheck'"""
            ).fetchone()
            check = f"SELECT {schema[0] if schema else 'public'}.bt_index_check(%s::oid::regclass)".encode()
            indexes = rows(connection, _INDEXES)
            for index in indexes:
                if time.monotonic() > deadline:
                    break
                connection.execute(check, (index["oid"],))
                checked += 1
        except psycopg.errors.DatabaseError as error:
            damaged = (error.sqlstate or "").startswith("XX")
            text = str(error).strip().splitlines()[0]
            if damaged:
                return Finding("index-damaged", "fail", f"{name}: {text}", "pg_amcheck, then REINDEX")
            return Finding("indexes-unchecked", "warn", f"{name}: {text}", "install the amcheck extension")
        finally:
            connection.rollback()
    if checked < len(indexes):
        return Finding(
            "indexes-checked-partly",
            "warn",
            f"{name}: {checked} of {len(indexes)} indexes checked in the time given, all sound",
            "pg_amcheck --all",
        )
    return Finding("indexes-checked", "ok", f"{name}: {checked} indexes are sound")
