"""The register in memory obeys the port, with and without pages; the suite notices when one does not."""

import pytest

from exclave.registers.memory import MemoryRegister
from exclave.registers.slabs import SLAB_BYTES
from exclave.testing.observing import Remembered, observe
from exclave.testing.register_suite import RegisterSuite, Subject


def _files():
    return {
        b"empty": b"",
        b"small": b"a" * 100,
        b"folder/one": b"b" * 1_000_000,
        b"folder/two": b"c" * 1_048_576,
        b"folder/deep/er/long": bytes(range(256)) * 20_000,
        b"folder/deep/exact": b"x" * SLAB_BYTES,
        b"odd\xff\nname": b"z",
    }


@pytest.mark.parametrize("page_bytes", [0, 8192])
class TestMemoryRegister(RegisterSuite):
    @pytest.fixture
    def subject(self, page_bytes):
        files = _files()

        def change():
            files[b"folder/one"] = b"new"
            files[b"folder/deep/er/long"] += b"more"
            files[b"added/file"] = b"added"
            del files[b"small"]
            return frozenset({b"folder/one", b"folder/deep/er/long", b"added/file", b"small"})

        register = MemoryRegister(files, page_bytes=page_bytes)
        return Subject(register=register, content=lambda: files, change=change)


def test_a_fault_on_demand():
    def fault(path):
        if path == b"folder/two":
            raise OSError(5, "medium error")

    with pytest.raises(OSError, match="medium"):
        observe(MemoryRegister(_files(), fault=fault), Remembered())


def test_settling_is_counted():
    register = MemoryRegister(_files())
    observe(register, Remembered())
    assert register.settled == 2
