"""A tree of files obeys the port."""

import os

import pytest

from exclave.registers.files.register import FilesRegister
from exclave.testing.register_suite import RegisterSuite, Subject


def _content(root):
    """Path -> content with holes left out, read in the plainest way."""
    found = {}
    seen = set()
    for folder, folders, names in os.walk(os.fsencode(root)):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            s = os.lstat(path)
            if os.path.islink(path) or not os.path.isfile(path) or s.st_ino in seen:
                continue
            seen.add(s.st_ino)
            with open(path, "rb") as file:
                data = file.read()
            found[os.path.relpath(path, os.fsencode(root))] = data
    return found


class TestFilesRegister(RegisterSuite):
    @pytest.fixture
    def subject(self, tmp_path):
        root = tmp_path / "root"
        (root / "a/b").mkdir(parents=True)
        (root / "a-b").mkdir()
        (root / "empty folder").mkdir()
        (root / "empty").touch()
        (root / "small").write_bytes(b"s" * 10)
        (root / "a/whole").write_bytes(os.urandom(1 << 20))
        (root / "a/b/long").write_bytes(os.urandom((5 << 20) + 17))
        (root / "a/b/slab").write_bytes(os.urandom(2 << 20))
        (root / "a-b/many").write_bytes(b"m" * 4097)
        (root / "a-b/odd\n\udcff").write_bytes(b"odd")
        (root / "link").symlink_to("/nowhere")
        os.link(root / "a/whole", root / "zz")

        def change():
            (root / "small").write_bytes(b"S" * 10)
            (root / "a/b/long").write_bytes(b"shorter now")
            (root / "a/new").write_bytes(b"new")
            (root / "a-b/many").unlink()
            return frozenset({b"small", b"a/b/long", b"a/new", b"a-b/many"})

        return Subject(
            register=FilesRegister(root), content=lambda: _content(root), change=change, quiet_seconds=0.06
        )
