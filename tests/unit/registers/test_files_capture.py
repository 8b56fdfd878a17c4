"""What a capture tells of a tree: gaps, links, exclusions, owners, and what it does not trust."""

import os
import pwd
import shutil
import time
from pathlib import Path

import pytest

from exclave.errors import Misconfigured, Unreachable
from exclave.listing import AS_BEFORE, CTIME, INODE, MTIME, NO_CONTENT, ROOT, SIZE
from exclave.registers.files import attributes, telling, walking
from exclave.registers.files.register import FilesRegister
from exclave.testing.observing import Remembered, observe

TICK = 0.06  # seconds after which a change is old enough to be trusted


def _row(seen, path):
    folder, _, name = path.rpartition(b"/")
    listing = seen.remembered.folders[folder]
    return listing, listing.names.index(name)


def test_what_was_written_a_moment_ago_is_read_again(tmp_path):
    (tmp_path / "file").write_bytes(b"a")
    first = observe(FilesRegister(tmp_path), Remembered())
    listing, row = _row(first, b"file")
    assert listing.stats[row, CTIME] == -1
    time.sleep(TICK)
    second = observe(FilesRegister(tmp_path), first.remembered)
    assert set(second.read) == {b"file"}
    third = observe(FilesRegister(tmp_path), second.remembered)
    assert not third.read
    assert third.same == {b""}


def test_a_time_of_writing_far_ahead_is_believed(tmp_path):
    """Somebody set it; the time of change, which nobody can set, still tells whether the file changed."""
    (tmp_path / "file").write_bytes(b"a")
    (tmp_path / "soon").write_bytes(b"b")
    os.utime(tmp_path / "file", ns=(0, 8 * 10**18))
    os.utime(tmp_path / "soon", ns=(0, time.time_ns() + 3600 * 10**9))
    time.sleep(TICK)
    first = observe(FilesRegister(tmp_path), Remembered())
    assert set(observe(FilesRegister(tmp_path), first.remembered).read) == {b"soon"}


def test_whole_second_times_are_distrusted_for_longer(tmp_path, monkeypatch):
    """A file system that keeps whole seconds cannot tell two changes in one of them apart."""
    (tmp_path / "file").write_bytes(b"a")
    real = walking.columns
    now = time.time_ns() // 10**9 * 10**9

    def scan(descriptor):
        found = real_scan(descriptor)
        found.table[:, [MTIME, CTIME]] = now
        return found

    real_scan = walking.scan
    monkeypatch.setattr("exclave.registers.files.capture.scan", scan)
    monkeypatch.setattr("exclave.registers.files.telling.columns", lambda s: (_second(real(s)[0], now), True))
    monkeypatch.setattr(time, "time_ns", lambda: now + 1_900_000_000)
    listing, row = _row(observe(FilesRegister(tmp_path), Remembered()), b"file")
    assert listing.stats[row, CTIME] == -1
    monkeypatch.setattr(time, "time_ns", lambda: now + telling.COARSE_TICK_NS)
    listing, row = _row(observe(FilesRegister(tmp_path), Remembered()), b"file")
    assert listing.stats[row, CTIME] == now


def _second(row, now):
    row[MTIME] = row[CTIME] = now
    return row


def test_a_change_that_hides_its_mtime_is_seen(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    time.sleep(TICK)
    first = observe(FilesRegister(tmp_path), Remembered())
    s = path.stat()
    path.write_bytes(b"after!")
    os.utime(path, ns=(s.st_atime_ns, s.st_mtime_ns))
    assert observe(FilesRegister(tmp_path), first.remembered).read == {b"file": b"after!"}


def test_only_new_attributes_cost_no_folder(tmp_path):
    """A folder whose subfolder changed is told again, with its files as before."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    os.setxattr(tmp_path / "file", "user.note", b"kept")
    time.sleep(TICK)
    first = observe(FilesRegister(tmp_path), Remembered())
    (tmp_path / "sub/new").write_bytes(b"y")
    second = observe(FilesRegister(tmp_path), first.remembered)
    assert set(second.read) == {b"sub/new"}
    listing, row = _row(second, b"file")
    assert listing.content[row] == AS_BEFORE
    assert listing.extras[row] == {"xattrs": {b"user.note": b"kept"}}


def test_a_changed_attribute_is_seen(tmp_path):
    (tmp_path / "folder").mkdir()
    os.setxattr(tmp_path / "folder", "user.note", b"one")
    time.sleep(TICK)
    first = observe(FilesRegister(tmp_path), Remembered())
    os.setxattr(tmp_path / "folder", "user.note", b"two")
    second = observe(FilesRegister(tmp_path), first.remembered)
    listing, row = _row(second, b"folder")
    assert listing.extras[row] == {"xattrs": {b"user.note": b"two"}}


def test_the_first_name_of_a_linked_file_has_its_content(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/x").write_bytes(b"linked")
    os.link(tmp_path / "a/x", tmp_path / "b/x")
    os.link(tmp_path / "a/x", tmp_path / "b/y")
    time.sleep(TICK)
    first = observe(FilesRegister(tmp_path), Remembered())
    assert first.read == {b"a/x": b"linked"}
    listing, row = _row(first, b"b/y")
    assert listing.extras == {0: {"twin": b"a/x"}, 1: {"twin": b"a/x"}}
    assert listing.content[row] == NO_CONTENT
    assert observe(FilesRegister(tmp_path), first.remembered).same == {b"", b"a", b"b"}

    (tmp_path / "a").rename(
        tmp_path / "c"
    )  # nothing in b changed, and yet its content has to come from it now
    time.sleep(TICK)
    second = observe(FilesRegister(tmp_path), first.remembered)
    assert second.content[b"b/x"] == b"linked"
    assert _row(second, b"b/y")[0].extras == {1: {"twin": b"b/x"}}
    assert _row(second, b"c/x")[0].extras == {0: {"twin": b"b/x"}}
    third = observe(FilesRegister(tmp_path), second.remembered)
    assert not third.read
    shutil.rmtree(tmp_path / "c")
    assert observe(FilesRegister(tmp_path), third.remembered).content == {b"b/x": b"linked"}


def test_what_is_left_out(tmp_path):
    for name in (
        "keep",
        "cache/keep",
        "a/cache/x",
        "a/tmp.swp",
        "a/b/log/1",
        "a/log/2",
        "x.swp.keep",
        "nl\n.swp",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    register = FilesRegister(tmp_path, exclude=("*.swp", "/cache", "a/*/log"))
    assert set(observe(register, Remembered()).content) == {b"keep", b"a/cache/x", b"a/log/2", b"x.swp.keep"}
    register = FilesRegister(tmp_path, exclude=("cache/", "log"))
    left = {b"keep", b"a/tmp.swp", b"x.swp.keep", b"nl\n.swp"}
    assert set(observe(register, Remembered()).content) == left


def test_owners_are_named(tmp_path):
    seen = observe(FilesRegister(tmp_path), Remembered())
    me = pwd.getpwuid(os.geteuid())
    assert seen.environment["owners"]["users"] == {str(me.pw_uid): me.pw_name}
    assert str(tmp_path.stat().st_gid) in seen.environment["owners"]["groups"]


def test_owners_of_unchanged_folders_are_named_too(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    time.sleep(TICK)
    first = observe(FilesRegister(tmp_path), Remembered())
    assert observe(FilesRegister(tmp_path), first.remembered).environment == first.environment


def test_what_may_not_be_read_is_told(open_path, ordinary_user):
    with ordinary_user():
        root = open_path / "root"
        (root / "closed").mkdir(parents=True)
        (root / "closed/inside").write_bytes(b"x")
        (root / "names only").mkdir()
        (root / "names only/inside").write_bytes(b"x")
        (root / "secret").write_bytes(b"secret")
        (root / "open").write_bytes(b"open")
        (root / "secret").chmod(0)
        (root / "closed").chmod(0o100)
        (root / "names only").chmod(0o400)
        seen = observe(FilesRegister(root), Remembered())
        assert sorted((gap.path, gap.why) for gap in seen.gaps) == [
            (b"closed", "Permission denied"),
            (b"names only/inside", "Permission denied"),
            (b"secret", "Permission denied"),
        ]
        assert seen.read == {b"open": b"open"}
        listing, row = _row(seen, b"secret")
        assert listing.extras[row] == {"note": "Permission denied"}
        assert listing.stats[row, [SIZE, CTIME]].tolist() == [0, -1]
        listing, row = _row(seen, b"closed")
        assert listing.extras[row] == {"note": "Permission denied"}
        time.sleep(TICK)
        (root / "secret").chmod(0o600)
        (root / "closed").chmod(0o700)
        again = observe(FilesRegister(root), seen.remembered)
        assert {b"secret", b"closed/inside"} <= set(again.read)
        (root / "names only").chmod(0o700)


@pytest.mark.needs_root
def test_files_of_others_that_may_be_read(open_path, ordinary_user):
    """Keeping the access time is the owner's right; reading without it is not refused."""
    (open_path / "roots").write_bytes(b"x")
    (open_path / "roots").chmod(0o644)
    with ordinary_user():
        assert observe(FilesRegister(open_path), Remembered()).read == {b"roots": b"x"}


def test_access_times_stay(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    os.utime(tmp_path / "file", ns=(5, 10**18))
    observe(FilesRegister(tmp_path), Remembered())
    assert (tmp_path / "file").stat().st_atime_ns == 5


def test_made_up_file_systems_are_gaps(tmp_path, monkeypatch):
    assert attributes.pseudo_devices()[os.stat("/proc").st_dev] == "proc"
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/kcore").write_bytes(b"endless")
    device = tmp_path.stat().st_dev
    monkeypatch.setattr(attributes, "pseudo_devices", lambda: {device: "proc"})
    seen = observe(FilesRegister(tmp_path), Remembered())
    assert [gap.path for gap in seen.gaps] == [b"proc"]
    assert seen.content == {}
    assert _row(seen, b"proc")[0].extras == {1: {"note": "a file system of type proc"}}


def test_numbers_beyond_64_bits_are_brought_into_range():
    class Stat:
        st_mode = st_uid = st_gid = st_size = st_nlink = st_blocks = st_mtime_ns = st_ctime_ns = 0
        st_ino, st_dev = 2**64 - 1, 2**63

    class Late(Stat):
        st_mtime_ns, st_ctime_ns = 2**63, -(2**63) - 1

    row, exact = walking.columns(Stat())
    assert exact
    assert row[INODE] == -1
    row, exact = walking.columns(Late())
    assert not exact
    assert row[MTIME] == 2**63 - 1
    assert row[CTIME] == -(2**63)


def test_times_beyond_2262_are_told(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    os.utime(tmp_path / "file", (0, 10_000_000_000))
    if (tmp_path / "file").stat().st_mtime != 10_000_000_000:
        return  # this file system cannot hold such times
    seen = observe(FilesRegister(tmp_path), Remembered())
    assert [gap.path for gap in seen.gaps] == [b"file"]
    assert seen.content == {b"file": b"x"}


def test_a_root_that_is_not_there(tmp_path):
    with pytest.raises(Unreachable, match="cannot be read"):
        observe(FilesRegister(tmp_path / "nowhere"), Remembered())
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="not a folder"):
        observe(FilesRegister(tmp_path / "file"), Remembered())


def test_a_root_given_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    assert observe(FilesRegister(tmp_path / "link"), Remembered()).content == {b"file": b"x"}


def test_an_empty_root_is_itself(tmp_path):
    seen = observe(FilesRegister(tmp_path), Remembered())
    assert seen.remembered.folders[b""].names == [ROOT]


def test_the_doctor_looks_at_the_root(tmp_path):
    def levels(path):
        return {finding.id: finding.level for finding in FilesRegister(path).doctor()}

    assert levels(tmp_path)["files-root-empty"] == "warn"
    (tmp_path / "file").write_bytes(b"12345")
    assert levels(tmp_path)["files-root"] == "ok"
    assert levels(tmp_path / "file") == {"files-root-not-a-folder": "fail"}
    assert levels(tmp_path / "nowhere") == {"files-root-unreachable": "fail"}
    assert levels(Path("/proc")) == {"files-root-pseudo": "fail"}
    assert FilesRegister(tmp_path).size_hint() == 5
    assert FilesRegister(tmp_path / "nowhere").size_hint() == 0
    assert FilesRegister(Path("/")).size_hint() > 0
