"""The instant is the last one whose position is not beyond the stop; a clock that fails only gets older."""

import threading
import time

import psycopg

from exclave.registers.postgres.clock import SourceClock


class Server:
    """A connection to a server whose clock and position are told; counts seconds as microseconds apart."""

    def __init__(self, samples, *, standby=False):
        self.samples, self.standby, self.asked, self._row = list(samples), standby, [], None
        self.empty = threading.Event()

    def execute(self, query):
        text = query.decode()
        self.asked.append(text)
        if text == "SELECT pg_is_in_recovery()":
            self._row = (self.standby,)
        elif "epoch" in text:
            if not self.samples:
                self.empty.set()
                raise psycopg.OperationalError("gone")
            self._row = (self.samples[0][0],)
        else:
            self._row = (self.samples.pop(0)[1],)
        return self

    def fetchone(self):
        return self._row


def _sampled(server):
    with SourceClock(server) as clock:
        assert server.empty.wait(10)
        time.sleep(0)
    return clock


def test_the_last_sample_before_the_stop_counts():
    clock = _sampled(
        Server([(1_000_000, "0/100"), (2_000_000, "0/200"), (3_000_000, "0/300"), (4_000_000, "1/0")])
    )
    assert clock.consistent_at(0x300) == 3_000_000_000
    assert clock.consistent_at(0x2FF) == 2_000_000_000
    assert clock.consistent_at(0x100) == 1_000_000_000
    assert clock.consistent_at(1 << 32) == 4_000_000_000


def test_the_clock_is_read_before_the_position():
    server = Server([(1_000_000, "0/100")])
    _sampled(server)
    clock, position = server.asked[1], server.asked[2]
    assert "clock_timestamp" in clock
    assert "insert_lsn" in position


def test_a_standby_answers_with_what_it_replayed():
    server = Server([(1_000_000, "0/100")], standby=True)
    _sampled(server)
    assert "pg_last_xact_replay_timestamp" in server.asked[1]
    assert "pg_last_wal_replay_lsn" in server.asked[2]
