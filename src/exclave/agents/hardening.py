"""What a process that holds keys does to keep its memory to itself. Nothing here is certain; it is told what holds."""

from __future__ import annotations

import ctypes
import re
import resource
from pathlib import Path

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_MCL_CURRENT, _MCL_FUTURE = 1, 2
_CLONE_NEWNET = 0x40000000
_CAP_IPC_LOCK = 14
_ROOM = 1 << 30  # bytes of lockable memory below which locking could make a later allocation fail


def harden() -> dict[str, bool]:
    """Apply every protection that the rights of this process allow; name -> whether it holds."""
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return {
        "no-core-dump": resource.getrlimit(resource.RLIMIT_CORE) == (0, 0),
        "no-foreign-look": libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0,
        "no-new-rights": libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0,
        "no-network": libc.unshare(_CLONE_NEWNET) == 0,
        "no-swap": _lockable() and libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) == 0,
    }


def _lockable() -> bool:
    """Whether locking everything cannot starve this process later: by right, or by a generous limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    rights = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    may_lock = rights is not None and int(rights[1], 16) >> _CAP_IPC_LOCK & 1 == 1
    return may_lock or hard == resource.RLIM_INFINITY or hard >= _ROOM
