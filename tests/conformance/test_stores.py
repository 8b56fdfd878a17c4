"""The store suite over every adapter that needs no server, and over the wrappers."""

from __future__ import annotations

from pathlib import Path

import pytest

from exclave.stores.base import Store
from exclave.stores.directory import DirectoryStore
from exclave.stores.limited import Limited
from exclave.stores.memory import MemoryStore
from exclave.stores.retrying import Retrying
from exclave.testing.store_suite import StoreSuite


class TestMemory(StoreSuite):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestDirectory(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return DirectoryStore(tmp_path)


class TestRetrying(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return Retrying(DirectoryStore(tmp_path))


class TestLimited(StoreSuite):
    @pytest.fixture
    def store(self) -> Store:
        return Limited(MemoryStore(), 1e12)
