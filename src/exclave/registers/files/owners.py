"""Names of the owners seen, so that they can be found again where the numbers differ."""

from __future__ import annotations

import grp
import pwd

import numpy as np
from numpy.typing import NDArray


class Owners:
    """Collects the ids of a snapshot."""

    def __init__(self) -> None:
        self._users: set[int] = set()
        self._groups: set[int] = set()

    def see(self, users: NDArray[np.int64], groups: NDArray[np.int64]) -> None:
        """Take in two columns of ids."""
        for column, known in ((users, self._users), (groups, self._groups)):
            if len(column) and not (int(column[0]) in known and bool((column == column[0]).all())):
                known.update(np.unique(column).tolist())

    def document(self) -> dict[str, dict[str, str]]:
        """`{"users": {"0": "root"}, "groups": {...}}`; ids without a name are left out."""
        users = {str(uid): name for uid in sorted(self._users) if (name := _user(uid))}
        groups = {str(gid): name for gid in sorted(self._groups) if (name := _group(gid))}
        return {"users": users, "groups": groups}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return ""


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return ""


def local_ids(owners: dict[str, dict[str, str]]) -> tuple[dict[int, int], dict[int, int]]:
    """For users and for groups: number there -> number here, where the same name has another number here."""
    users: dict[int, int] = {}
    groups: dict[int, int] = {}
    for number, name in owners.get("users", {}).items():
        try:
            users[int(number)] = pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    for number, name in owners.get("groups", {}).items():
        try:
            groups[int(number)] = grp.getgrnam(name).gr_gid
        except KeyError:
            continue
    return users, groups
