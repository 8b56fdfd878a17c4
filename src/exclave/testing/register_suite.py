"""What every register adapter must do, as a class of tests to derive from.

Derive from `RegisterSuite`, name the class `Test...`, and give it a fixture `subject` that returns a `Subject`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from exclave import codec
from exclave.listing import AS_BEFORE, CTIME
from exclave.registers.base import Register
from exclave.registers.slabs import Slab
from exclave.testing.observing import GuardedPool, Observation, Remembered, observe

_KINDS = {"files", "postgres", "sqlite"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A register under test, over a source that has some content.

    `content()` is what stands in the source now: path -> content, holes left out. `change()` alters some files (not
    all) and says which. Between them the source stands still, unless it is not `steady` (a server that writes by
    itself); then only what `content` names is compared, and skipping is not asked for.
    `quiet_seconds` is how long after a change the register still distrusts its clock and reads again.
    """

    register: Register
    content: Callable[[], Mapping[bytes, bytes]]
    change: Callable[[], frozenset[bytes]]
    steady: bool = True
    quiet_seconds: float = 0.0


def _compare(subject: Subject, seen: Observation) -> None:
    expected = dict(subject.content())
    if subject.steady:
        assert seen.content.keys() == expected.keys(), "other files than in the source"
    for path, content in expected.items():
        assert seen.content.get(path) == content, f"content of {path!r} differs"


class RegisterSuite:
    """Derive, and give a `subject` fixture; pytest collects the tests by the derived class."""

    def test_a_first_capture_tells_everything(self, subject: Subject) -> None:
        """Events obey the port (checked while they are taken), and content put together equals the source."""
        seen = observe(subject.register, Remembered())
        assert not seen.same, "without a previous snapshot there is nothing to be the same as"
        _compare(subject, seen)

    def test_nothing_changed_tells_the_same_folders(self, subject: Subject) -> None:
        """A second reading of a source that stands still costs no content."""
        time.sleep(subject.quiet_seconds)
        first = observe(subject.register, Remembered())
        again = observe(subject.register, first.remembered)
        _compare(subject, again)
        if subject.steady:
            assert not again.slabs, "content was read although nothing changed"
            assert again.same == set(first.remembered.folders), "folders that did not change were told again"

    def test_only_what_changed_is_read(self, subject: Subject) -> None:
        """Changed files carry new content; the others in their folders are as before."""
        time.sleep(subject.quiet_seconds)
        first = observe(subject.register, Remembered())
        changed = subject.change()
        again = observe(subject.register, first.remembered)
        _compare(subject, again)
        if subject.steady:
            assert set(again.read) <= changed, "a file was read that did not change"
            for path in changed & again.content.keys():
                assert first.content.get(path) == again.content[path] or path in again.read

    def test_a_prior_that_is_another_time_is_not_trusted(self, subject: Subject) -> None:
        """Rows whose change time is unknown (-1) are read again."""
        time.sleep(subject.quiet_seconds)
        first = observe(subject.register, Remembered())
        for listing in first.remembered.folders.values():
            listing.stats[:, CTIME] = -1
        again = observe(subject.register, first.remembered)
        _compare(subject, again)
        assert not any(first.remembered.folders[path].names for path in again.same)
        assert set(again.read) == {path for path, content in again.content.items() if content}

    def test_stopping_early_gives_slabs_back(self, subject: Subject) -> None:
        """A consumer that goes away leaves nothing behind, wherever it stops."""
        for stop in range(3):
            pool = GuardedPool()
            with subject.register.capture(Remembered(), pool, lambda _files, _bytes: None) as capture:
                events = capture.changes()
                for number, event in enumerate(events):
                    if isinstance(event, Slab):
                        event.release()
                    if number == stop:
                        break
                close = getattr(events, "close", None)
                if close is not None:
                    close()
            assert pool.out == 0, "a slab was kept"

    def test_what_is_told_beside_the_content(self, subject: Subject) -> None:
        """Environment, instant, position, gaps, progress; settling twice is harmless."""
        before = time.time_ns()
        seen = observe(subject.register, Remembered())
        assert before - 1_000_000_000 <= seen.consistent_at <= time.time_ns() + 1_000_000_000
        assert codec.decode(codec.encode(seen.environment)) == seen.environment
        assert all(gap.why for gap in seen.gaps)
        assert seen.progress == sorted(seen.progress), "progress went back"

    def test_the_source_can_be_checked(self, subject: Subject) -> None:
        """A doctor that finds nothing wrong with a working source, a hint, a kind that a rebuilder knows."""
        findings = subject.register.doctor()
        assert findings
        assert {finding.level for finding in findings} <= {"ok", "warn"}
        assert all(finding.hint for finding in findings if finding.level != "ok")
        assert subject.register.size_hint() >= 0
        assert subject.register.kind in _KINDS

    def test_captures_are_alike(self, subject: Subject) -> None:
        """Two first captures of a source that stands still list the same rows."""
        first, second = observe(subject.register, Remembered()), observe(subject.register, Remembered())
        if not subject.steady:
            return
        assert first.remembered.folders.keys() == second.remembered.folders.keys()
        for path, listing in first.remembered.folders.items():
            other = second.remembered.folders[path]
            assert listing.names == other.names
            assert np.array_equal(listing.stats[:, :CTIME], other.stats[:, :CTIME])
            assert listing.extras == other.extras
            assert AS_BEFORE not in listing.content

    def test_a_folder_is_the_same_only_when_told_before(self, subject: Subject) -> None:
        """A prior that lost one folder gets that one in full."""
        time.sleep(subject.quiet_seconds)
        first = observe(subject.register, Remembered())
        lost = max(first.remembered.folders)
        del first.remembered.folders[lost]
        again = observe(subject.register, first.remembered)
        assert lost not in again.same
        _compare(subject, again)
