"""What several tests need: places that another user may enter, leave to act as that user, no network but loopback."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

NOBODY = 65534

# Whoever starts the tests in the background of a shell has Ctrl-C ignored, and every program started from here too:
# the tests that press it would wait for nothing. A handler (any) is not inherited; to ignore is.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# One outcome for one tree: a failure found by chance in CI would be nobody's. `make test-long` looks further.
settings.register_profile(
    "ci", max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "long", max_examples=2000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failed one (make test, CI)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only root can try, and say so in the report's first lines of "deselected"."""
    if os.geteuid() == 0:
        return
    left_out = [item for item in items if item.get_closest_marker("needs_root")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} was skipped, and nothing may be left out in silence: {report.longrepr}"
        )
    return report


@pytest.fixture(autouse=True, scope="session")
def _only_loopback() -> Iterator[None]:
    """Any connection from this process to somewhere else is an error, not a slow test."""
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
    yield
    patch.undo()


def _guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise AssertionError(f"a test tried to reach {address[0]}; only loopback is allowed")
        return connect(self, address)

    return guarded


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A fresh directory that any user may enter and write in, unlike `tmp_path`; short enough for Unix sockets."""
    place = Path(tempfile.mkdtemp(prefix="exclave-test-")).resolve()
    place.chmod(0o1777)
    yield place
    _unlock(place)
    shutil.rmtree(place)


@pytest.fixture
def ordinary_user() -> Callable[[], AbstractContextManager[None]]:
    """`with ordinary_user():` acts without root's powers, so that permissions count; as another user it does nothing.

    Only the effective ids of this process change: import what is needed before, and give paths under `open_path`.
    """
    return _without_root


@contextmanager
def _without_root() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def _unlock(place: Path) -> None:
    """Give back the permissions that a test took away, so that the place can be removed."""
    for folder, _, _ in os.walk(place, onerror=lambda error: Path(str(error.filename)).chmod(0o700)):
        Path(folder).chmod(0o700)
