"""The document server opens what is inside its folder, and nothing else."""

import os

import pytest

from exclave.runtimes.static_server import Documents, content_type, listing


@pytest.fixture
def root(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    inside = tmp_path / "inside"
    (inside / "2026" / "deep").mkdir(parents=True)
    (inside / "2026" / "law.html").write_text("<p>law")
    (inside / "2026" / "near").symlink_to("law.html")
    (inside / "2026" / "deep" / "up").symlink_to("../law.html")
    (inside / "2026" / "deep" / "round").symlink_to("../../2026/deep/up")
    (inside / "latest").symlink_to("2026")
    (inside / "absolute").symlink_to(outside / "secret")
    (inside / "climbs").symlink_to("../outside/secret")
    (inside / "2026" / "climbs").symlink_to("../../outside")
    (inside / "loop").symlink_to("loop")
    os.mkfifo(inside / "pipe")
    return inside


@pytest.fixture
def documents(root):
    made = Documents(root)
    yield made
    made.close()


def _read(documents, path):
    descriptor = documents.open(path)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


@pytest.mark.parametrize(
    "path",
    [
        b"/2026/law.html",
        b"2026//./law.html",
        b"/2026/near",
        b"/latest/law.html",
        b"/2026/deep/up",
        b"/latest/deep/round",
    ],
)
def test_what_is_inside_is_served(documents, path):
    assert _read(documents, path) == b"<p>law"


@pytest.mark.parametrize(
    "path",
    [
        b"/../outside/secret",
        b"/2026/../../outside/secret",
        b"/2026/../2026/law.html",
        b"/absolute",
        b"/climbs",
        b"/2026/climbs/secret",
        b"/latest/climbs/secret",
        b"/loop",
        b"/pipe",
        b"/2026/law.html/more",
        b"/missing",
    ],
)
def test_nothing_else_is(documents, path):
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    with pytest.raises(OSError):
        documents.open(path)
    after = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    assert len(after) == len(before), "a descriptor was kept"


def test_a_root_that_is_a_file_is_refused(root):
    with pytest.raises(NotADirectoryError):
        Documents(root / "2026" / "law.html")


def test_a_folder_is_listed_with_every_name(tmp_path):
    for name in (b"a & b.txt", b"caf\xc3\xa9", b"odd\xff"):
        (tmp_path / os.fsdecode(name)).touch()
    (tmp_path / "sub").mkdir()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    page = listing(b"/gazette/", descriptor).decode()
    os.close(descriptor)
    assert '<a href="./a%20%26%20b.txt">a &amp; b.txt</a>' in page
    assert '<a href="./caf%C3%A9">café</a>' in page
    assert '<a href="./odd%FF">' in page
    assert '<a href="./sub/">sub/</a>' in page
    assert '<a href="../">' in page


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"a.html", "text/html; charset=utf-8"),
        (b"a.pdf", "application/pdf"),
        (b"a.json", "application/json; charset=utf-8"),
        (b"a.tar.gz", "application/octet-stream"),
        (b"odd\xff", "application/octet-stream"),
    ],
)
def test_content_types(name, kind):
    assert content_type(b"/x/" + name) == kind
