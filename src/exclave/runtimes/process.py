"""Child processes that outlive us: started in their own session, found again and stopped by pid and birth."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from exclave.errors import Busy, Misconfigured, Unreachable
from exclave.runtimes import base
from exclave.runtimes.account import Account
from exclave.runtimes.base import Service

_TAIL_BYTES = 4096
_children: dict[
    int, subprocess.Popen[bytes]
] = {}  # ours, so that they are reaped and their exit status is known


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    account: Account | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path = Path("/"),
) -> int:
    """Start `command` in a session of its own with output appended to `log` (mode 0600); its pid.

    With an `account` it runs as that one, with no other groups. Standard input is empty, no descriptor is handed on.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            cwd=cwd,
            env=dict(environment) if environment is not None else None,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except OSError as error:
        raise Misconfigured(
            "service-start-failed",
            f"{Path(str(command[0])).name} cannot be started",
            why=error.strerror or str(error),
        ) from error
    finally:
        os.close(descriptor)
    _children[child.pid] = child
    return child.pid


def birth(pid: int) -> str:
    """When process `pid` began, in the kernel's words; empty if there is none (or it is only waiting to be reaped)."""
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        return ""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return "" if Path("/proc/self").exists() else _birth_elsewhere(pid)
    except ProcessLookupError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _birth_elsewhere(pid: int) -> str:
    done = subprocess.run(
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=10
    )
    return done.stdout.strip()


def alive(service: Service) -> bool:
    """Whether the very process that was started is still there."""
    return service.began != "" and birth(service.pid) == service.began


def end(service: Service, *signals: tuple[signal.Signals, float]) -> None:
    """Send each signal in turn and wait its seconds for the process to go. Raises Unreachable if it does not."""
    for number, seconds in signals:
        if not alive(service):
            return
        try:
            os.kill(service.pid, number)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise Misconfigured(
                "service-not-ours",
                f"{service.name} cannot be stopped",
                why=f"process {service.pid} belongs to another account",
                hint="run the command as the account that started it",
            ) from error
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not alive(service):
                return
            time.sleep(0.02)
    if alive(service):
        raise Unreachable(
            "service-will-not-stop",
            f"{service.name} did not stop",
            why=f"process {service.pid} ignored every signal",
            hint=f"see {service.log}",
        )


def tail(log: Path, *, lines: int = 6) -> str:
    """The last lines of a log, for an error message."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return "no log"
    return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip()) or "an empty log"


def wait_until(ready: Callable[[], bool], service: Service, *, seconds: float) -> None:
    """Wait until `ready`. Raises Misconfigured if the process ends before, or is not ready in time (it is killed)."""
    deadline = time.monotonic() + seconds
    pause = 0.01
    while not ready():
        if not alive(service):
            raise Misconfigured(
                "service-start-failed",
                f"{service.name} ended while starting",
                why=tail(service.log),
                hint=f"see {service.log}",
            )
        if time.monotonic() > deadline:
            end(service, (signal.SIGTERM, 10), (signal.SIGKILL, 10))
            raise Misconfigured(
                "service-start-failed",
                f"{service.name} was not ready after {seconds:.0f} s",
                why=tail(service.log),
                hint=f"see {service.log}",
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


def refuse_twice(folder: Path, name: str) -> None:
    """Raises Busy when the service called `name`, started from `folder`, still runs."""
    for service in base.services(folder):
        if service.name == name and alive(service):
            raise Busy(
                "service-running",
                f"{name} is running already",
                why=f"process {service.pid} serves {service.place}",
                hint="stop it first, or choose another name",
            )
