"""What every store must do; derive from `StoreSuite`, give it a `store` fixture, and pytest does the rest."""

from __future__ import annotations

import secrets
import threading

import pytest

from exclave.errors import NotThere, Refused, Tampered
from exclave.stores.base import Listed, Store

BIG = 9 << 20


class StoreSuite:
    """Every test works in a folder of its own, so one store may serve them all, and need not be empty."""

    @pytest.fixture
    def store(self) -> Store:
        """The store under test."""
        raise NotImplementedError

    @pytest.fixture
    def at(self) -> str:
        """A folder, with its slash, that no other test uses."""
        return f"suite-{secrets.token_hex(8)}/"

    def test_gives_back_what_was_put(self, store: Store, at: str) -> None:
        store.put(at + "one", b"first")
        assert store.get(at + "one", limit=5) == b"first"
        assert store.size(at + "one") == 5

    @pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) + 1, BIG])
    def test_takes_every_size(self, store: Store, at: str, size: int) -> None:
        data = secrets.token_bytes(size)
        store.put(at + "x", data)
        assert store.get(at + "x", limit=size) == data
        assert list(store.list(at)) == [Listed(at + "x", size)]

    def test_takes_every_kind_of_buffer(self, store: Store, at: str) -> None:
        buffer = bytearray(b"..middle..")
        store.put(at + "bytearray", buffer)
        store.put(at + "view", memoryview(buffer)[2:8])
        buffer[:] = b"reused!!!!"
        assert store.get(at + "bytearray", limit=10) == b"..middle.."
        assert store.get(at + "view", limit=10) == b"middle"

    def test_same_bytes_again_are_fine(self, store: Store, at: str) -> None:
        store.put(at + "x", b"same")
        store.put(at + "x", b"same")
        assert store.get(at + "x", limit=4) == b"same"

    @pytest.mark.parametrize("other", [b"othe", b"longer than before", b"", b"sam"])
    def test_other_bytes_are_refused_and_change_nothing(self, store: Store, at: str, other: bytes) -> None:
        store.put(at + "x", b"same")
        with pytest.raises(Refused) as refusal:
            store.put(at + "x", other)
        assert refusal.value.id == "store-conflict"
        assert store.get(at + "x", limit=100) == b"same"

    def test_one_difference_deep_inside_is_a_conflict(self, store: Store, at: str) -> None:
        data = bytearray(secrets.token_bytes(BIG))
        store.put(at + "x", data)
        data[BIG // 2] ^= 1
        with pytest.raises(Refused):
            store.put(at + "x", data)

    def test_what_is_missing_is_not_there(self, store: Store, at: str) -> None:
        store.put(at + "folder/x", b"1")
        for name in (at + "none", at + "none/deeper", at + "folder/y"):
            for act in (
                lambda name=name: store.get(name, limit=1),
                lambda name=name: store.get_range(name, 0, 1),
                lambda name=name: store.size(name),
            ):
                with pytest.raises(NotThere) as missing:
                    act()
                assert missing.value.id == "object-missing"

    def test_longer_than_the_limit_is_not_read(self, store: Store, at: str) -> None:
        store.put(at + "x", b"12345")
        with pytest.raises(Tampered) as tampered:
            store.get(at + "x", limit=4)
        assert tampered.value.id == "object-too-long"

    def test_ranges(self, store: Store, at: str) -> None:
        data = secrets.token_bytes(100_000)
        store.put(at + "x", data)
        for start, length in ((0, 1), (0, 100_000), (99_999, 1), (40_000, 30_000), (5, 0), (100_000, 0)):
            assert store.get_range(at + "x", start, length) == data[start : start + length]

    @pytest.mark.parametrize(("start", "length"), [(0, 11), (9, 2), (10, 1), (50, 5), (11, 0)])
    def test_a_range_past_the_end_is_an_error(self, store: Store, at: str, start: int, length: int) -> None:
        store.put(at + "x", b"0123456789")
        with pytest.raises(Tampered) as tampered:
            store.get_range(at + "x", start, length)
        assert tampered.value.id == "object-too-short"

    def test_lists_a_folder_sorted_bytewise(self, store: Store, at: str) -> None:
        names = ["a-b", "a.b", "a/b", "a/c/d", "a0", "B", "z/0001", "z/0002", "aa/x"]
        for name in names:
            store.put(at + name, name.encode())
        rows = list(store.list(at))
        assert rows == sorted(Listed(at + name, len(name)) for name in names)
        assert [row.name for row in store.list(at + "a/")] == [at + "a/b", at + "a/c/d"]
        assert list(store.list(at + "none/")) == []
        assert [row for row in store.list("") if row.name.startswith(at)] == rows

    def test_lists_what_comes_after(self, store: Store, at: str) -> None:
        names = [f"{at}c/{term:08x}/{number:016x}" for term in (1, 2) for number in range(8)]
        for name in names:
            store.put(name, b"x")
        for after in (
            names[0],
            names[6],
            names[9],
            names[15],
            at,
            f"{at}c/00000001",
            f"{at}c/00000002/",
            "A",
            "~",
        ):
            assert [row.name for row in store.list(at + "c/", after=after)] == [n for n in names if n > after]

    @pytest.mark.parametrize(
        "name",
        ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a b", "a\\b", "a\nb", "a\0b",
         "ü", "~incoming/x", "a:b", "a%2fb", "a/" + "b" * 199],
    )  # fmt: skip
    def test_refuses_names_outside_the_alphabet(self, store: Store, name: str) -> None:
        for act in (
            lambda: store.put(name, b"x"),
            lambda: store.get(name, limit=1),
            lambda: store.get_range(name, 0, 1),
            lambda: store.size(name),
        ):
            with pytest.raises(ValueError, match="not the name"):
                act()

    @pytest.mark.parametrize("prefix", ["a", "../", "/", "a/../", "~incoming/"])
    def test_refuses_prefixes_that_are_no_folders(self, store: Store, prefix: str) -> None:
        with pytest.raises(ValueError, match=r"listing begins|not the name"):
            list(store.list(prefix))

    def test_of_many_that_create_one_name_exactly_one_wins(self, store: Store, at: str) -> None:
        writers = 6
        for race in range(5):
            name, gate = f"{at}{race}", threading.Barrier(writers)
            won: list[bytes] = []
            lost: list[bytes] = []

            def write(data: bytes, name: str = name, gate: threading.Barrier = gate,
                      won: list[bytes] = won, lost: list[bytes] = lost) -> None:  # fmt: skip
                gate.wait()
                try:
                    store.put(name, data)
                except Refused:
                    lost.append(data)
                else:
                    won.append(data)

            threads = [threading.Thread(target=write, args=(bytes([n]) * 5000,)) for n in range(writers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(won) == 1
            assert len(lost) == writers - 1
            assert store.get(name, limit=5000) == won[0]
