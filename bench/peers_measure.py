"""Runs a program and says what it cost: wall, CPU of its whole process tree, peak memory. Probes the machine."""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
MIB = 1 << 20


class ProgramFailedError(Exception):
    """A measured program did not do its work; its last words are in the message."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One act. `peak_bytes` is the largest process of the tree; `server_cpu_seconds` is in `cpu_seconds` too."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    server_cpu_seconds: float = 0.0

    def plain(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def adopt_orphans() -> None:
    """Make this process inherit the orphans of what it starts, so that their CPU is counted and none is left."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    server: int | None = None,
) -> Cost:
    """Run to the end, output into `log`. `server`: pid of a server that works for the program; its share counts.

    Raises ProgramFailedError with the end of the log.
    """
    os.sync()  # what an earlier act left to be written is not this one's wall
    _reap()  # nor is the CPU of an orphan that ended before, such as a stopped server, this one's CPU
    before_server = _tree_cpu(server) if server is not None else 0.0
    before_cpu = _children_cpu()
    with log.open("ab") as out:
        out.write(f"$ {' '.join(map(str, command))}\n".encode())
        out.flush()
        started = time.monotonic()
        child = subprocess.Popen(
            list(map(str, command)), env=dict(env), cwd=cwd, stdout=out, stderr=out, stdin=subprocess.DEVNULL
        )
        _, status, used = os.wait4(child.pid, 0)
        wall = time.monotonic() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    peak = max(used.ru_maxrss, *_reap()) * 1024
    if child.returncode != 0:
        tail = log.read_bytes()[-2000:].decode(errors="replace")
        raise ProgramFailedError(f"exit code {child.returncode}: {' '.join(map(str, command))}\n{tail}")
    served = _tree_cpu(server) - before_server if server is not None else 0.0
    return Cost(wall, _children_cpu() - before_cpu + served, peak, served)


def _reap() -> list[int]:
    """Bury orphans that have ended; the peak memory of each in KiB, and a zero."""
    peaks = [0]
    while True:
        try:
            found, _, used = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return peaks
        if found == 0:
            return peaks
        peaks.append(used.ru_maxrss)


def _tree_cpu(pid: int) -> float:
    """CPU seconds of a process, of its living children and of those that it has reaped."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = sum(_stat(pid)[11:15]) / ticks
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            total += sum(_stat(int(child))[11:15]) / ticks
        except (OSError, IndexError):
            continue  # it ended just now and is counted with its parent
    return total


def _stat(pid: int) -> list[int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(field) if field.lstrip("-").isdigit() else 0 for field in fields]


def stored_bytes(folder: Path) -> int:
    """Sum of the lengths of all files below."""
    return sum(
        os.lstat(os.path.join(top, name)).st_size for top, _, names in os.walk(folder) for name in names
    )


@dataclass(frozen=True, slots=True)
class Probe:
    """How fast the machine is at this moment. Seconds of CPU for three fixed pieces of work."""

    first_touch: float
    copy: float
    sha256: float

    @classmethod
    def take(cls) -> Probe:
        """Best of three, about half a second; in a process of its own, which keeps this one small (see README)."""
        done = subprocess.run([sys.executable, __file__], capture_output=True, check=True)
        return cls(**json.loads(done.stdout))

    @classmethod
    def best(cls) -> Probe:
        """What `take` asks of the other process."""
        rounds = [cls._once() for _ in range(3)]
        return cls(*(min(getattr(one, name) for one in rounds) for name in cls.__slots__))

    @classmethod
    def _once(cls) -> Probe:
        size, block = 32 * MIB, b"\1" * MIB
        started = time.thread_time()
        with mmap.mmap(-1, size) as memory:
            for at in range(0, size, 4096):
                memory[at] = 1
            touched = time.thread_time()
            for at in range(0, size, MIB):
                memory[at : at + MIB] = block
            copied = time.thread_time()
        for _ in range(50):
            hashlib.sha256(block).digest()
        return cls(touched - started, copied - touched, time.thread_time() - copied)

    def drift(self, later: Probe) -> float:
        """How many times slower or faster the machine became; 1.0 is not at all.

        By the slower of hashing and first touch: the copy alone is short enough to be noise.
        """
        pairs = ((self.sha256, later.sha256), (self.first_touch, later.first_touch))
        return max(max(a / b, b / a) for a, b in pairs)


if __name__ == "__main__":
    print(json.dumps(asdict(Probe.best())))
