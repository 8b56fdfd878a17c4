"""A tree that was captured comes back with every attribute; one that was forged is refused."""

import os
import socket
import stat
import subprocess

import numpy as np
import pytest

from exclave.errors import Refused, Tampered, Unreachable
from exclave.listing import NO_CONTENT, ROOT, STATS, Listing
from exclave.registers.files.rebuilding import TreeBuilder
from exclave.registers.files.register import FilesRegister
from exclave.testing.comparing import compare
from exclave.testing.observing import Remembered, observe
from exclave.testing.replanting import replant

NO_OWNERS = {"users": {}, "groups": {}}
# version 2; owner rw, user 1 r, group r, mask r, others none
ACL = bytes.fromhex(
    "02000000 01000600ffffffff 0200040001000000 04000400ffffffff 10000400ffffffff 20000000ffffffff"
)
DEFAULT_ACL = bytes.fromhex("02000000 01000700ffffffff 04000500ffffffff 20000000ffffffff")


def _plant(root):
    """One of everything that an ordinary user can make."""
    (root / "folder/inner").mkdir(parents=True)
    (root / "small").write_bytes(b"s" * 100)
    (root / "empty").touch()
    (root / "folder/long").write_bytes(os.urandom((3 << 20) + 1))
    (root / "link").symlink_to("folder/long")
    os.symlink(b"\xff\n", os.fsencode(root) + b"/folder/link \xfe")
    os.link(root / "folder/long", root / "folder/inner/twin")
    os.link(root / "small", root / "small again")
    os.mkfifo(root / "fifo", 0o622)
    place = socket.socket(socket.AF_UNIX)
    before = os.getcwd()
    os.chdir(root)
    try:
        place.bind("socket")
    finally:
        os.chdir(before)
        place.close()
    with (root / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"x" * 4096)
        file.seek(5 << 20)
        file.write(b"y" * 8192)
        file.truncate(9 << 20)
    with (root / "one hole").open("wb") as file:
        file.truncate(16 << 20)
    os.setxattr(root / "small", "user.note", b"\0\xff")
    os.setxattr(root / "folder", "user.on a folder", b"")
    os.setxattr(root / "small", "system.posix_acl_access", ACL)
    os.setxattr(root / "folder/inner", "system.posix_acl_default", DEFAULT_ACL)
    (root / "folder/long").chmod(0o400)
    os.setxattr(root / "sparse", "user.x", b"1")
    (root / "sparse").chmod(0o604)
    for number, path in enumerate(("small", "link", "folder/inner", "folder", ".")):
        os.utime(root / path, ns=(1, 1_234_567_890_123_456_789 + number), follow_symlinks=False)
    os.utime(root / "empty", ns=(0, -5_000_000_001))
    (root / "folder/inner").chmod(0o1555)


@pytest.fixture
def planted(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    _plant(root)
    yield root
    (root / "folder/inner").chmod(0o755)


@pytest.mark.parametrize("piece_bytes", [0, 4096, 1_000_003])
def test_everything_comes_back(planted, tmp_path, piece_bytes):
    seen = observe(FilesRegister(planted), Remembered())
    assert seen.gaps == []
    assert replant(seen, tmp_path / "place", keep_owners=True, piece_bytes=piece_bytes) == []
    assert compare(planted, tmp_path / "place") == []
    (tmp_path / "place/folder/inner").chmod(0o755)


def test_without_owners_nothing_gets_a_set_user_id_bit(tmp_path):
    root = tmp_path / "root"
    root.mkdir(mode=0o2775)
    root.chmod(0o2775)
    for name, mode in (("suid", 0o4755), ("sgid", 0o2755), ("sticky", 0o1755)):
        (root / name).write_bytes(b"program")
        (root / name).chmod(mode)
    seen = observe(FilesRegister(root), Remembered())
    assert replant(seen, tmp_path / "place", keep_owners=False) == []
    modes = {
        name: stat.S_IMODE((tmp_path / "place" / name).stat().st_mode) for name in ("suid", "sgid", "sticky")
    }
    assert modes == {"suid": 0o755, "sgid": 0o755, "sticky": 0o1755}
    assert stat.S_IMODE((tmp_path / "place").stat().st_mode) == 0o775
    assert replant(seen, tmp_path / "kept", keep_owners=True) == []
    assert compare(root, tmp_path / "kept") == []


@pytest.mark.needs_root
def test_devices_and_foreign_owners_come_back(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 200))
    (root / "theirs").write_bytes(b"x")
    (root / "program").write_bytes(b"x")
    (root / "folder").mkdir()
    (root / "link").symlink_to("x")
    for name in ("theirs", "program", "folder", "link"):
        os.chown(root / name, 4_000_001, 4_000_002, follow_symlinks=False)
    (root / "program").chmod(0o6711)
    os.setxattr(
        root / "program", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000")
    )
    os.setxattr(root / "link", "trusted.note", b"on the link", follow_symlinks=False)
    seen = observe(FilesRegister(root), Remembered())
    assert replant(seen, tmp_path / "place", keep_owners=True) == []
    assert compare(root, tmp_path / "place") == []


@pytest.mark.needs_root
def test_an_ordinary_user_is_told_once_what_he_cannot_restore(open_path, ordinary_user):
    root = open_path / "root"
    root.mkdir()
    for number in range(5):
        (root / f"file {number}").write_bytes(b"x")
        (root / f"file {number}").chmod(0o4755)
    os.mknod(root / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    seen = observe(FilesRegister(root), Remembered())
    with ordinary_user():
        gaps = replant(seen, open_path / "place", keep_owners=True)
        assert [(gap.path, gap.why.split(":")[0]) for gap in gaps] == [
            (b"device", "a device needs root"),
            (b"", "6 entries could not be given their owner"),
        ]
        assert stat.S_IMODE((open_path / "place/file 0").stat().st_mode) == 0o755


def test_a_place_in_use_is_refused(tmp_path):
    (tmp_path / "place").mkdir()
    (tmp_path / "place/there").touch()
    with pytest.raises(Refused, match="not empty"):
        TreeBuilder(tmp_path / "place", owners=NO_OWNERS, keep_owners=True)
    with pytest.raises(Unreachable):
        TreeBuilder(tmp_path / "place/there/below", owners=NO_OWNERS, keep_owners=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unreachable):
        TreeBuilder(tmp_path / "link", owners=NO_OWNERS, keep_owners=True)


def _listing(path, names, *, mode=0o100644, size=1):
    stats = np.zeros((len(names), STATS), np.int64)
    stats[:, 0], stats[:, 3] = mode, size
    for row, name in enumerate(names):
        if name == ROOT and not path:
            stats[row, 0], stats[row, 3] = 0o40755, 0
    return Listing(path, names, stats, np.full(len(names), NO_CONTENT), np.zeros(len(names), np.int32))


def _with_extra(listing, row, **extra):
    listing.extras[row] = extra
    return listing


@pytest.mark.parametrize(
    "listing",
    [
        _listing(b"", [b".."]),
        _listing(b"", [b""]),
        _listing(b"", [b"a/b"]),
        _listing(b"", [b"/etc/passwd"]),
        _listing(b"", [b"a\0b"]),
        _listing(b"", [b"a", b"a"]),
        _listing(b"", [b"n" * 256]),
        _listing(b"", [b"a"], size=-1),
        _listing(b"", [b"a"], mode=0o644),
        _listing(b"not made", [b"a"]),
        _listing(b"..", [b"a"]),
        _with_extra(_listing(b"", [b"a"], size=10), 0, holes=[(5, 5), (4, 1)]),
        _with_extra(_listing(b"", [b"a"], size=10), 0, holes=[(5, 6)]),
        _with_extra(_listing(b"", [b"a"], size=10), 0, holes=[(-5, 6)]),
        _with_extra(_listing(b"", [b"a"], size=10), 0, holes=[(5, 0)]),
    ],
    ids=lambda listing: repr((listing.path, listing.names))[:40],
)
def test_hostile_listings_are_refused(tmp_path, listing):
    with (
        TreeBuilder(tmp_path / "place", owners=NO_OWNERS, keep_owners=True) as builder,
        pytest.raises(Tampered),
    ):
        builder.folder(listing)


def test_the_top_entry_is_no_name_elsewhere(tmp_path):
    with TreeBuilder(tmp_path / "place", owners=NO_OWNERS, keep_owners=True) as builder:
        builder.folder(_listing(b"", [b"a"], mode=0o40755, size=0))
        with pytest.raises(Tampered):
            builder.folder(_listing(b"a", [ROOT], mode=0o40755, size=0))


def test_a_folder_is_told_once(tmp_path):
    with TreeBuilder(tmp_path / "place", owners=NO_OWNERS, keep_owners=True) as builder:
        builder.folder(_listing(b"", [b"a"], size=0))
        with pytest.raises(Tampered, match="cannot exist"):
            builder.folder(_listing(b"", [b"b"], size=0))


def test_a_link_is_no_folder_to_build_in(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    with TreeBuilder(tmp_path / "place", owners=NO_OWNERS, keep_owners=True) as builder:
        link = _with_extra(_listing(b"", [b"a"], mode=0o120777, size=0), 0, target=os.fsencode(outside))
        builder.folder(link)
        with pytest.raises(Tampered):
            builder.folder(_listing(b"a", [b"b"]))


def test_a_folder_swapped_for_a_link_meanwhile_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    with TreeBuilder(tmp_path / "place", owners=NO_OWNERS, keep_owners=True) as builder:
        builder.folder(_listing(b"", [b"a"], mode=0o40755, size=0))
        (tmp_path / "place/a").rmdir()
        (tmp_path / "place/a").symlink_to(outside)
        numbers = builder.folder(_listing(b"a", [b"b"]))
        with pytest.raises(Unreachable):
            builder.write(int(numbers[0]), 0, memoryview(b"x"))
    assert not list(outside.iterdir())


@pytest.mark.parametrize(
    "twin", [b"../outside", b"/etc/passwd", b"", b"..", b"nowhere/x", b"a/../../x", b"a\0b"]
)
def test_a_hard_link_leads_nowhere_else(tmp_path, twin):
    (tmp_path / "outside").touch()
    with TreeBuilder(tmp_path / "place", owners=NO_OWNERS, keep_owners=True) as builder:
        builder.folder(_with_extra(_listing(b"", [b"name"]), 0, twin=twin))
        with pytest.raises(Tampered):
            builder.finish()


def test_content_that_does_not_come_is_a_gap(tmp_path):
    with TreeBuilder(tmp_path / "place", owners=NO_OWNERS, keep_owners=True) as builder:
        numbers = builder.folder(_listing(b"", [b"a", b"b"], size=10))
        builder.write(int(numbers[0]), 5, memoryview(b"12345"))
        gaps = builder.finish()
    assert [(gap.path, gap.why) for gap in gaps] == [
        (b"a", "5 bytes of its content did not come"),
        (b"b", "10 bytes of its content did not come"),
    ]


def test_too_much_content_is_a_bug_of_ours(tmp_path):
    with TreeBuilder(tmp_path / "place", owners=NO_OWNERS, keep_owners=True) as builder:
        number = int(builder.folder(_listing(b"", [b"a", b"b"], size=3))[0])
        with pytest.raises(ValueError, match="lacks 3"):
            builder.write(number, 0, memoryview(b"1234"))
        builder.write(number, 0, memoryview(b"123"))
        with pytest.raises(ValueError, match="lacks 0"):
            builder.write(number, 0, memoryview(b"1"))
        with pytest.raises(ValueError, match="no file 2"):
            builder.write(2, 0, memoryview(b"1"))


def test_what_appears_meanwhile_is_not_replaced(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    with TreeBuilder(tmp_path / "place", owners=NO_OWNERS, keep_owners=True) as builder:
        number = int(builder.folder(_listing(b"", [b"a"]))[0])
        (tmp_path / "place/a").write_bytes(b"somebody else's")
        with pytest.raises(Unreachable, match="cannot be written"):
            builder.write(number, 0, memoryview(b"x"))
    assert (tmp_path / "place/a").read_bytes() == b"somebody else's"
    assert len(os.listdir("/proc/self/fd")) == before


def test_many_files_in_pieces_need_few_descriptors(tmp_path):
    with TreeBuilder(tmp_path / "place", owners=NO_OWNERS, keep_owners=False) as builder:
        numbers = builder.folder(_listing(b"", [b"%04d" % n for n in range(2000)], size=2))
        for number in numbers.tolist():
            builder.write(number, 1, memoryview(b"b"))
        assert len(os.listdir("/proc/self/fd")) < 200
        for number in numbers.tolist():
            builder.write(number, 0, memoryview(b"a"))
        assert builder.finish() == []
    assert {path.read_bytes() for path in (tmp_path / "place").iterdir()} == {b"ab"}


def test_owners_go_by_name(tmp_path):
    """The number abroad may belong to somebody else: the name decides."""
    name = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()
    listing = _listing(b"", [b"a"])
    listing.stats[:, 1:3] = 4_000_001
    owners = {"users": {"4000001": name}, "groups": {}}
    with TreeBuilder(tmp_path / "place", owners=owners, keep_owners=True) as builder:
        builder.write(int(builder.folder(listing)[0]), 0, memoryview(b"x"))
        builder.finish()
    assert (tmp_path / "place/a").stat().st_uid == os.geteuid()


def test_many_folders_need_few_descriptors(tmp_path):
    names = [b"%03d" % number for number in range(300)]
    with TreeBuilder(tmp_path / "place", owners=NO_OWNERS, keep_owners=False) as builder:
        builder.folder(_listing(b"", names, mode=0o40755, size=0))
        for name in names:
            builder.write(int(builder.folder(_listing(name, [b"file"]))[0]), 0, memoryview(b"x"))
        assert len(os.listdir("/proc/self/fd")) < 200
        assert builder.finish() == []
    assert len(list((tmp_path / "place").glob("*/file"))) == 300


def test_nobody_may_enter_until_the_end(tmp_path):
    (tmp_path / "place").mkdir(mode=0o777)
    (tmp_path / "place").chmod(0o777)
    listing = _listing(b"", [ROOT, b"a"], size=0)
    listing.stats[0, 0] = 0o40750
    with TreeBuilder(tmp_path / "place", owners=NO_OWNERS, keep_owners=False) as builder:
        builder.folder(listing)
        assert stat.S_IMODE((tmp_path / "place").stat().st_mode) == 0o700
        builder.finish()
    assert stat.S_IMODE((tmp_path / "place").stat().st_mode) == 0o750


def test_a_place_with_inheritance_gives_none(tmp_path):
    """A default ACL or a set-group-id bit on the place must not reach what is restored."""
    place = tmp_path / "place"
    place.mkdir()
    os.setxattr(place, "system.posix_acl_default", DEFAULT_ACL)
    place.chmod(0o2777)
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "folder/file").write_bytes(b"x")
    (root / "folder/file").chmod(0o666)
    assert replant(observe(FilesRegister(root), Remembered()), place, keep_owners=True) == []
    assert compare(root, place) == []
