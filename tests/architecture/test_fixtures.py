"""The fixtures that other tests lean on do what they say."""

import os
import socket
from pathlib import Path

import pytest


def test_a_connection_to_another_machine_is_refused():
    with socket.socket() as sock, pytest.raises(AssertionError, match="only loopback"):
        sock.connect(("192.0.2.1", 80))


def test_loopback_is_reached():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())


def test_an_ordinary_user_meets_permissions(open_path, ordinary_user):
    closed = open_path / "closed"
    with ordinary_user():
        (open_path / "mine").write_text("written")
        closed.mkdir(mode=0o000)
        with pytest.raises(PermissionError):
            (closed / "file").write_text("refused")
    assert (open_path / "mine").read_text() == "written"


def test_powers_come_back_after_an_error(ordinary_user):
    before = os.geteuid(), os.getegid(), os.getgroups()
    with pytest.raises(KeyError), ordinary_user():
        raise KeyError
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before


def test_another_user_can_enter_every_folder_on_the_way(open_path: Path):
    for folder in open_path.parents:
        assert folder.stat().st_mode & 0o001
