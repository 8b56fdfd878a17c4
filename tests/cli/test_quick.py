"""The quick verbs stay quick: nothing heavy is imported, and `status` costs little."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from exclave.cli import main

SOURCE = str(Path(main.__file__).parents[2])
HEAVY = (
    "numpy",
    "obstore",
    "psycopg",
    "rich",
    "zstandard",
    "sqlite3",
    "tomlkit",
    "msgspec",
    "asyncio",
    "logging.config",
)
CPU_SECONDS = 0.15
BARE_SECONDS = 0.015  # of an interpreter that does nothing, on the machine for which the limit was set


def cpu_seconds(folder: Path, program: str) -> float:
    """The least of some runs: others on the machine can only make it more."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([SOURCE, *filter(None, sys.path)])}
    spent: list[float] = []
    for _ in range(7):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


def test_status_costs_little(realm, say):
    say(realm, "protect")
    say(realm, "verify")
    slower = max(1.0, cpu_seconds(realm, "pass") / BARE_SECONDS)
    spent = cpu_seconds(realm, "from exclave.cli.main import run; raise SystemExit(run(['status']))")
    assert spent <= CPU_SECONDS * slower


@pytest.mark.parametrize(
    "words", [["status"], ["--help"], ["register", "list"], ["config", "check"], ["explain"]]
)
def test_quick_verbs_import_nothing_heavy(realm, say, words):
    say(realm, "protect")
    program = (
        f"import sys\nfrom exclave.cli.main import run\nrun({words!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([SOURCE, *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=realm,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_help_imports_no_verb(realm):
    program = (
        "import sys\nfrom exclave.cli.main import VERBS, run\nrun(['--help'])\n"
        "print([m for m, _ in VERBS.values() if m in sys.modules], file=sys.stderr)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([SOURCE, *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=realm,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == "[]"
