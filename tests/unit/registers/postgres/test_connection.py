"""What libpq and the server say becomes our errors, and the password never shows."""

import pytest

from exclave.errors import Misconfigured, Tampered, Unreachable
from exclave.registers.postgres.connection import Source, read_password
from exclave.registers.postgres.register import PostgresRegister

_SAID = [
    ('FATAL:  password authentication failed for user "x"', "", Misconfigured, "source-login-refused"),
    (
        'FATAL:  no pg_hba.conf entry for replication connection from host "::1"',
        "",
        Misconfigured,
        "source-login-refused",
    ),
    ('FATAL:  role "x" does not exist', "", Misconfigured, "source-login-refused"),
    (
        "FATAL:  must be superuser or replication role to start walsender",
        "",
        Misconfigured,
        "source-permission",
    ),
    ("FATAL:  permission denied to start WAL sender", "", Misconfigured, "source-permission"),
    ("ERROR:  checksum verification failure during base backup", "XX001", Tampered, "source-damaged"),
    (
        "ERROR:  WAL level not sufficient for making an online backup",
        "55000",
        Misconfigured,
        "source-settings",
    ),
    ('ERROR:  could not find WAL file "000000010000000000000003"', "XX000", Unreachable, "source-wal-gone"),
    (
        "FATAL:  number of requested standby connections exceeds max_wal_senders (currently 1)",
        "",
        Unreachable,
        "source-senders-taken",
    ),
    ("FATAL:  the database system is shutting down", "", Unreachable, "source-unreachable"),
    ("could not receive data from server: Connection reset by peer", "", Unreachable, "source-unreachable"),
    ("ERROR:  something new", "XX000", Unreachable, "source-failed"),
]


@pytest.mark.parametrize(("text", "sqlstate", "kind", "name"), _SAID)
def test_words_become_errors(text, sqlstate, kind, name):
    error = Source("host=x").explained(text, sqlstate)
    assert type(error) is kind
    assert error.id == name
    assert error.why == text
    assert error.hint


def test_a_password_never_shows(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    secret.chmod(0o600)
    source = Source("host=x password=swordfish", secret)
    assert "swordfish" not in repr(source)
    error = source.explained('FATAL: bad "swordfish" or "hunter2"')
    assert "swordfish" not in f"{error} {error.why}"
    assert "hunter2" not in f"{error} {error.why}"
    assert "swordfish" not in repr(PostgresRegister("password=swordfish"))


def test_a_malformed_string_is_not_quoted():
    with pytest.raises(Misconfigured) as caught:
        Source("host=x password=sword fish").sql()
    assert caught.value.id == "conninfo-malformed"
    assert "fish" not in f"{caught.value} {caught.value.why} {caught.value.__cause__}"


def test_a_password_file_is_for_its_owner_alone(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("hunter2\nsecond line\n")
    secret.chmod(0o640)
    with pytest.raises(Misconfigured, match="Others can read"):
        read_password(secret)
    secret.chmod(0o600)
    assert read_password(secret) == "hunter2"
    secret.write_text("")
    with pytest.raises(Misconfigured, match="empty"):
        read_password(secret)
    with pytest.raises(Misconfigured, match="cannot be read"):
        read_password(tmp_path / "none")
