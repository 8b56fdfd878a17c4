"""Which of home's settings a rebuilt cluster keeps, and what replaces the others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

# Would reach out to home's network, wait for home's standbys, archive over home's archive, run home's commands, or
# name files and addresses of home's machine.
STRIPPED = frozenset(
    {
        "archive_cleanup_command",
        "archive_command",
        "archive_library",
        "archive_mode",
        "archive_timeout",
        "bonjour",
        "bonjour_name",
        "config_file",
        "data_directory",
        "dynamic_library_path",
        "dynamic_shared_memory_type",
        "event_source",
        "extension_control_path",
        "external_pid_file",
        "fsync",
        "full_page_writes",
        "hba_file",
        "huge_pages",
        "ident_file",
        "idle_replication_slot_timeout",
        "include",
        "include_dir",
        "include_if_exists",
        "io_method",
        "jit_provider",
        "krb_server_keyfile",
        "listen_addresses",
        "local_preload_libraries",
        "log_destination",
        "log_directory",
        "log_filename",
        "logging_collector",
        "max_slot_wal_keep_size",
        "oauth_validator_libraries",
        "port",
        "primary_conninfo",
        "primary_slot_name",
        "promote_trigger_file",
        "recovery_end_command",
        "recovery_init_sync_method",
        "recovery_min_apply_delay",
        "recovery_target",
        "recovery_target_action",
        "recovery_target_inclusive",
        "recovery_target_lsn",
        "recovery_target_name",
        "recovery_target_time",
        "recovery_target_timeline",
        "recovery_target_xid",
        "restore_command",
        "restrict_nonsystem_relation_kind",
        "session_preload_libraries",
        "shared_memory_type",
        "shared_preload_libraries",
        "ssl",
        "ssl_ca_file",
        "ssl_cert_file",
        "ssl_crl_dir",
        "ssl_crl_file",
        "ssl_dh_params_file",
        "ssl_key_file",
        "ssl_library",
        "ssl_passphrase_command",
        "ssl_passphrase_command_supports_reload",
        "standby_mode",
        "stats_temp_directory",
        "sync_replication_slots",
        "synchronized_standby_slots",
        "synchronous_standby_names",
        "trigger_file",
        "unix_socket_directories",
        "unix_socket_group",
        "unix_socket_permissions",
    }
)
# Not to be written in a file: compiled in, or fixed when the cluster was made.
_FIXED = frozenset(
    {
        "block_size",
        "data_checksums",
        "data_directory_mode",
        "debug_assertions",
        "effective_wal_level",
        "huge_pages_status",
        "in_hot_standby",
        "integer_datetimes",
        "lc_collate",
        "lc_ctype",
        "max_function_args",
        "max_identifier_length",
        "max_index_keys",
        "num_os_semaphores",
        "segment_size",
        "server_encoding",
        "server_version",
        "server_version_num",
        "shared_memory_size",
        "shared_memory_size_in_huge_pages",
        "ssl_renegotiation_limit",
        "transaction_deferrable",
        "transaction_isolation",
        "transaction_read_only",
        "wal_block_size",
        "wal_segment_size",
    }
)
# A standby must not have less of these than its primary had, or recovery stops.
AT_LEAST = (
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
)
_LOCALES = frozenset({"lc_messages", "lc_monetary", "lc_numeric", "lc_time"})
_ZONES = frozenset({"timezone", "log_timezone"})
# What a cluster must be like abroad until somebody decides otherwise. `restore_command` may not be empty, and
# `recovery.signal` beside it makes recovery end on a new timeline: home's is never continued.
IMPOSED = {
    "listen_addresses": "",
    "archive_mode": "off",
    "synchronous_standby_names": "",
    "primary_conninfo": "",
    "restore_command": "false",
    "recovery_target_timeline": "current",
    "recovery_target_action": "promote",
    "hot_standby": "on",
    "ssl": "off",
    "max_logical_replication_workers": "0",  # subscriptions would take home's changes from its publishers
    "huge_pages": "try",
    "logging_collector": "off",
    "log_destination": "stderr",
}
_LINE = re.compile(
    r"""\s*(?P<name>[A-Za-z_][A-Za-z0-9_$]*(?:\.[A-Za-z_][A-Za-z0-9_$]*)?)\s*(?:=\s*|\s)"""
    r"""(?:'(?P<quoted>(?:[^'\\]|''|\\.)*)'|(?P<plain>[^\s'#]+))\s*(?:\#.*)?"""
)


def parse(text: str) -> dict[str, str]:
    """The settings in a configuration file, names in lower case, the last one of each; what is no setting is passed."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match:
            quoted = match["quoted"]
            value = match["plain"] if quoted is None else _unquoted(quoted)
            found[match["name"].lower()] = value
    return found


def kept(home: Mapping[str, str], *, zones: Path) -> tuple[dict[str, str], list[str]]:
    """What of home's settings stays, and the names of those left out that somebody should know of."""
    stays: dict[str, str] = {}
    dropped: list[str] = []
    for written, value in sorted(home.items()):
        name = written.lower()
        if name in _FIXED or name.startswith("exclave."):
            continue
        if name in STRIPPED:
            dropped.append(name)
        elif name in _LOCALES and value not in {"C", "POSIX", "C.UTF-8", "C.utf8"}:
            dropped.append(name)  # a locale that is not installed would keep the server from starting
        elif name in _ZONES and value.upper() not in {"UTC", "GMT"} and not _is_zone(zones, value):
            dropped.append(name)
        else:
            stays[name] = value
    return stays, dropped


def written(settings: Mapping[str, str]) -> str:
    """Settings as lines of a configuration file."""
    return "".join(f"{name} = '{_quoted(value)}'\n" for name, value in settings.items())


def quantity(value: str, unit: int) -> int | None:
    """A size such as `512MB`, or a bare number of `unit` bytes, in bytes; None if it is neither."""
    match = re.fullmatch(r"\s*(\d+)\s*(B|kB|MB|GB|TB)?\s*", value)
    if match is None:
        return None
    factors = {"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
    return int(match[1]) * (factors[match[2]] if match[2] else unit)


def _is_zone(zones: Path, name: str) -> bool:
    return ".." not in name and (zones / name).is_file()


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n")


def _unquoted(text: str) -> str:
    return re.sub(r"''|\\(.)", lambda match: _ESCAPES.get(match[1], match[1]) if match[1] else "'", text)


_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
