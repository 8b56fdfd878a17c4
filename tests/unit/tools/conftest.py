"""Loads the stand-alone reader and the second writer from their files: neither is part of a package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


def _load(path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[path.stem] = module  # dataclasses look their module up by name
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def reader() -> ModuleType:
    return _load(HERE.parents[2] / "tools" / "exclave_reader.py")


@pytest.fixture(scope="session")
def writing() -> ModuleType:
    return _load(HERE / "store_writer.py")
