"""What a cluster needs around it to live elsewhere, read from its catalogues; what cannot be read is said."""

from __future__ import annotations

from typing import Any

import psycopg

from exclave.errors import ExclaveError
from exclave.registers.postgres.connection import Session, Source

MAX_DATABASES = 1000  # for which extensions are looked up, one connection each

_QUERIES = {
    "settings": """SELECT name, setting FROM pg_settings
        WHERE source NOT IN ('default', 'override', 'client', 'session', 'environment variable')
           OR name IN ('max_connections', 'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions',
                       'max_locks_per_transaction', 'server_encoding', 'wal_level')
        ORDER BY name""",
    "databases": """SELECT datname AS name, pg_encoding_to_char(encoding) AS encoding, datcollate AS collate,
        datctype AS ctype, {provider} AS provider, {locale} AS locale, {version} AS collation_version,
        datallowconn AS connectable, datistemplate AS template, oid::bigint AS oid FROM pg_database ORDER BY datname""",
    "roles": """SELECT rolname AS name, rolsuper AS superuser, rolcanlogin AS login, rolcreatedb AS createdb,
        rolcreaterole AS createrole, rolreplication AS replication, rolbypassrls AS bypassrls,
        rolconnlimit AS connections, rolvaliduntil::text AS valid_until, oid::bigint AS oid,
        ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
              WHERE m.member = r.oid ORDER BY 1) AS member_of
        FROM pg_roles r WHERE rolname !~ '^pg_' ORDER BY rolname""",
    "sizes": """SELECT datname AS name, pg_database_size(oid) AS size_bytes FROM pg_database ORDER BY datname""",
    "subscriptions": "SELECT subname::text AS name FROM pg_stat_subscription ORDER BY 1",
    "slots": """SELECT slot_name::text AS name, slot_type AS kind, plugin::text AS plugin FROM pg_replication_slots
        WHERE NOT temporary ORDER BY 1""",
}
_EXTENSIONS = "SELECT extname AS name, extversion AS version FROM pg_extension ORDER BY extname"
_UNLOGGED = """SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relpersistence = 'u' AND c.relkind = 'r' ORDER BY 1 LIMIT 100"""
# May hold a password, an address or a command line with one.
_SECRET = frozenset(
    {
        "primary_conninfo",
        "ssl_passphrase_command",
        "archive_command",
        "restore_command",
        "archive_cleanup_command",
    }
)
_SECRET_WORDS = ("password", "secret", "token", "passphrase", "_key", "conninfo", "dsn")


def read(source: Source, session: Session) -> dict[str, Any]:
    """The environment as a document. `unread` lists what this role may not see, and why."""
    system = session.rows("IDENTIFY_SYSTEM")[0]
    found: dict[str, Any] = {
        "system_identifier": system[0],
        "timeline": int(system[1] or 0),
        "version": session.show("server_version"),
        "version_number": session.server_version,
        "major": session.server_version // 10000,
        "block_bytes": session.block_bytes,
        "data_checksums": session.show("data_checksums") == "on",
        "wal_segment_bytes": size_bytes(session.show("wal_segment_size")),
        "unread": [],
    }
    try:
        with source.sql() as connection:
            _catalogues(connection, found)
    except ExclaveError as error:
        found["unread"].append({"what": "catalogues", "why": error.why or error.what})
        return found
    _each_database(source, found)
    return found


def size_bytes(text: str) -> int:
    """`16MB` as bytes, as SHOW prints sizes."""
    for unit, factor in (("kB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30), ("TB", 1 << 40), ("B", 1)):
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * factor
    return int(text)


def rows(connection: psycopg.Connection[Any], query: str) -> list[dict[str, Any]]:
    """The rows of a query by column name."""
    cursor = connection.execute(query.encode())
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _catalogues(connection: psycopg.Connection[Any], found: dict[str, Any]) -> None:
    for name, query in _QUERIES.items():
        try:
            found[name] = rows(connection, _fitted(query, found["major"]))
        except psycopg.Error as error:
            found["unread"].append({"what": name, "why": str(error).strip().splitlines()[0]})
    found["settings"] = {
        row["name"]: row["setting"] for row in found.get("settings", []) if not secret(row["name"])
    }
    try:
        libraries = connection.execute("SHOW shared_preload_libraries").fetchone()
        found["shared_preload_libraries"] = libraries[0] if libraries else ""
    except psycopg.Error as error:
        found["unread"].append(
            {"what": "shared_preload_libraries", "why": str(error).strip().splitlines()[0]}
        )


def secret(setting: str) -> bool:
    """Whether a setting may hold a secret, so that it must not travel in the environment."""
    return setting in _SECRET or any(word in setting for word in _SECRET_WORDS)


def _each_database(source: Source, found: dict[str, Any]) -> None:
    for database in [row for row in found.get("databases", []) if row["connectable"]][:MAX_DATABASES]:
        try:
            with source.sql(database["name"]) as connection:
                database["extensions"] = rows(connection, _EXTENSIONS)
                database["unlogged"] = [row[0] for row in connection.execute(_UNLOGGED).fetchall()]
        except (ExclaveError, psycopg.Error) as error:
            found["unread"].append({"what": f"extensions of {database['name']}", "why": str(error).strip()})


def _fitted(query: str, major: int) -> str:
    provider = "'c'" if major < 15 else "datlocprovider::text"
    locale = "NULL::text" if major < 15 else "daticulocale" if major < 17 else "datlocale"
    version = "NULL::text" if major < 15 else "datcollversion"
    return query.replace("{provider}", provider).replace("{locale}", locale).replace("{version}", version)
