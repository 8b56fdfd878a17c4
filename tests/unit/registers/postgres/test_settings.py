"""Home's configuration is read as PostgreSQL reads it; what would reach home or its network is left out."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from exclave.registers.postgres import settings

_FILE = r"""
# a comment
listen_addresses = '*'         # what IP address(es) to listen on
port 5433
Shared_Buffers = 128MB
work_mem='4MB'
log_line_prefix = '%m [%p] it''s \'here\' # not a comment '
archive_command = 'cp %p /net/home/%f'
synchronous_standby_names = 'FIRST 1 (a, b)'
pg_stat_statements.max = 5000
include_dir = 'conf.d'
nonsense line here
work_mem = 8MB
TimeZone = 'Europe/Nowhere'
lc_messages = 'et_EE.UTF-8'
"""


def test_a_configuration_file_is_read():
    found = settings.parse(_FILE)
    assert found["listen_addresses"] == "*"
    assert found["port"] == "5433"
    assert found["shared_buffers"] == "128MB"
    assert found["work_mem"] == "8MB", "the last line counts"
    assert found["log_line_prefix"] == "%m [%p] it's 'here' # not a comment "
    assert found["pg_stat_statements.max"] == "5000"
    assert "nonsense" not in found


def test_what_reaches_out_is_left_out(tmp_path: Path):
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe" / "Tallinn").touch()
    stays, dropped = settings.kept(settings.parse(_FILE), zones=tmp_path)
    assert stays == {
        "shared_buffers": "128MB",
        "work_mem": "8MB",
        "log_line_prefix": "%m [%p] it's 'here' # not a comment ",
        "pg_stat_statements.max": "5000",
    }
    assert {"listen_addresses", "archive_command", "synchronous_standby_names", "include_dir"} <= set(dropped)
    assert {"timezone", "lc_messages"} <= set(dropped), "a server that does not know them would not start"
    assert settings.kept({"TimeZone": "Europe/Tallinn"}, zones=tmp_path)[0] == {"timezone": "Europe/Tallinn"}
    assert settings.kept({"TimeZone": "../../etc/passwd"}, zones=tmp_path)[0] == {}


def test_what_is_imposed_is_never_taken_from_home():
    assert set(settings.IMPOSED) - {"hot_standby", "max_logical_replication_workers"} <= settings.STRIPPED


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=40))
def test_written_values_are_read_back(value):
    written = settings.written({"a.b": value})
    assert written.count("\n") == 1
    if value.isprintable() or not set(value) - set("\n\t abc"):
        assert settings.parse(written) == {"a.b": value}


def test_sizes():
    assert settings.quantity("16384", 8192) == 128 << 20
    assert settings.quantity(" 2GB ", 8192) == 2 << 30
    assert settings.quantity("many", 8192) is None
