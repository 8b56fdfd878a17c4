"""S3 through obstore against a real SeaweedFS: the store suite, locks that hold, a server that dies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from exclave.embassies.copy import catch_up
from exclave.embassies.embassy import Embassy
from exclave.embassies.fanout import Fanout
from exclave.embassies.inspect import Known, history
from exclave.errors import Misconfigured, Unreachable
from exclave.flows.verify import verify
from exclave.stores.base import Guarantee, Store
from exclave.stores.memory import MemoryStore
from exclave.stores.object_store import ObjectStore
from exclave.stores.probe import probe
from exclave.stores.retrying import Retrying
from exclave.testing.sealed_world import SealedWorld
from exclave.testing.seaweed import Seaweed
from exclave.testing.store_suite import StoreSuite

pytestmark = pytest.mark.integration


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with Seaweed(tmp_path_factory.mktemp("seaweed")) as site:
        site.bucket("plain")
        site.bucket("locked", locked_days=1)
        yield site


def bucket(site: Seaweed, url: str, *, request_seconds: float = 20.0) -> ObjectStore:
    return ObjectStore(
        url,
        credentials_file=site.credentials_file(),
        endpoint=site.endpoint,
        request_seconds=request_seconds,
    )


class TestS3(StoreSuite):
    @pytest.fixture
    def store(self, seaweed: Seaweed) -> Store:
        return bucket(seaweed, "s3://plain")


class TestS3InAFolder(StoreSuite):
    @pytest.fixture
    def store(self, seaweed: Seaweed) -> Store:
        return bucket(seaweed, "s3://plain/realm/site")


class TestLockedS3(StoreSuite):
    @pytest.fixture
    def store(self, seaweed: Seaweed) -> Store:
        return bucket(seaweed, "s3://locked/suite")


def test_probe_counts_a_lock_that_holds(seaweed: Seaweed) -> None:
    found = probe(Retrying(bucket(seaweed, "s3://locked/there")))
    assert found.kept == frozenset(Guarantee), found.broken


def test_probe_counts_no_lock_where_none_is(seaweed: Seaweed) -> None:
    found = probe(bucket(seaweed, "s3://plain"))
    assert found.kept == frozenset(Guarantee) - {Guarantee.LOCKED}
    assert "no versions" in found.broken[Guarantee.LOCKED]


def test_probe_counts_no_lock_where_only_versions_are(seaweed: Seaweed) -> None:
    requests = seaweed.bucket("versioned")
    body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    assert requests.send("PUT", query={"versioning": ""}, body=body).granted
    found = probe(bucket(seaweed, "s3://versioned"))
    assert "no default object lock" in found.broken[Guarantee.LOCKED]


def test_wrong_keys_are_a_setting_to_mend_and_are_not_told(seaweed: Seaweed, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.touch(mode=0o600)
    keys.write_text('access_key_id = "nobody"\nsecret_access_key = "hidden-from-messages"\n')
    store = ObjectStore("s3://plain", credentials_file=keys, endpoint=seaweed.endpoint)
    for act in (lambda: store.put("x", b"1"), lambda: store.get("x", limit=1), lambda: list(store.list(""))):
        with pytest.raises(Misconfigured) as wrong:
            act()
        assert wrong.value.id == "store-forbidden"
        assert "hidden-from-messages" not in str(wrong.value)


def test_keys_of_the_environment_are_not_used(
    seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.credentials.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.credentials.secret_access_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-else")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    bucket(seaweed, "s3://plain").put("environment/good", b"1")
    keys = tmp_path / "keys.toml"
    keys.touch(mode=0o600)
    keys.write_text('access_key_id = "nobody"\nsecret_access_key = "nothing"\n')
    with pytest.raises(Misconfigured):
        ObjectStore("s3://plain", credentials_file=keys, endpoint=seaweed.endpoint).put(
            "environment/bad", b"1"
        )


def test_a_server_killed_in_mid_put_loses_nothing_and_shows_nothing_half(tmp_path: Path) -> None:
    with Seaweed(tmp_path) as site:
        site.bucket("alone")
        store = bucket(site, "s3://alone", request_seconds=10)
        data = bytes(range(256)) * (4 << 12)
        held: list[str] = []

        def write() -> None:
            for number in range(1000):
                store.put(f"o/{number:04}", data)
                held.append(f"o/{number:04}")

        failures: list[BaseException] = []

        def run() -> None:
            try:
                write()
            except Unreachable as error:
                failures.append(error)

        writer = threading.Thread(target=run)
        writer.start()
        while len(held) < 5:
            threading.Event().wait(0.01)
        site.kill()
        writer.join(timeout=60)
        assert not writer.is_alive()
        assert len(failures) == 1
        with pytest.raises(Unreachable):
            store.size(held[0])
        site.start()
        later = Retrying(store)
        listed = {row.name: row.size for row in later.list("o/")}
        assert set(held) <= set(listed)
        assert set(listed.values()) == {len(data)}
        for name in listed:
            assert later.get(name, limit=len(data)) == data
        later.put(f"o/{len(held):04}", data)


def test_a_site_in_a_bucket_falls_behind_catches_up_and_verifies(tmp_path: Path) -> None:
    made = SealedWorld()
    with Seaweed(tmp_path) as site:
        site.bucket("behind")
        near, far = MemoryStore(), bucket(site, "s3://behind", request_seconds=60)
        embassies = [Embassy("near", near), Embassy("far", far)]
        for dark in (False, True):
            if dark:
                site.kill()
            snapshot = list(made.snapshot(packs=3, plain_bytes=1 << 20).items())
            with Fanout(embassies, copies=1) as fanout:
                for path, data in snapshot[:-1]:
                    fanout.put(path, data, None)
                held = fanout.publish(*snapshot[-1])
            assert held == ({"near"} if dark else {"near", "far"})
        site.start()
        found = history(embassies, made.register, made.signer.verifier)
        assert found.heads == {"near": 2, "far": 1}
        copied = catch_up(embassies[1], embassies[:1], made.register, found, lambda _objects, _done: None)
        assert (copied.objects, copied.head) == (6, 2)
        report = verify(embassies, [(made.register, made.signer.verifier)], told=Quiet())
        assert report.verdict == "good"
        assert report.embassies[0].read_bytes == report.embassies[1].read_bytes
        known = Known(1, 1, found.hash_of(1) or "")
        assert history(embassies, made.register, made.signer.verifier, known=known).heads == {
            "near": 2,
            "far": 2,
        }


class Quiet:
    def phase(self, what: str, total: int = 0) -> None:
        pass

    def told(self, files: int, done: int) -> None:
        pass
