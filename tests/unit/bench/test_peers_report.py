"""Ratios, goals, table and picture say what was measured."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest


def side(cpu: float, *, grown: int = 100, peak: float = 50e6) -> dict[str, Any]:
    cells = ("first", "same", "change", "restore", "verify")
    cost = {"wall_seconds": cpu * 2, "cpu_seconds": cpu, "peak_bytes": peak, "server_cpu_seconds": 0.0}
    return {"cells": dict.fromkeys(cells, cost), "bytes": {"first": 1000, "same": 0, "change": grown}}


def result(ours: list[float], **theirs: list[float]) -> dict[str, Any]:
    pairs = [
        {"peer": peer, "ours": {"exclave": side(mine, grown=10)}, "theirs": side(other)}
        for peer, others in theirs.items()
        for mine, other in zip(ours, others, strict=True)
    ]
    probe = {"drift": 1.1, "drifted": False}
    return {
        "set": "pgbench",
        "title": "T & T",
        "scale": 1,
        "bytes": 1e9,
        "files": 7,
        "probe": probe,
        "pairs": pairs,
    }


def test_a_ratio_is_of_medians_with_the_range_of_pairs() -> None:
    from peers_report import ratio

    got = ratio(result([1.0, 2.0, 9.0], restic=[4.0, 4.0, 6.0]), "exclave", "restic", "first", "cpu_seconds")
    assert got is not None
    assert (got.value, got.least, got.most) == (0.5, 0.25, 1.5)
    assert ratio(result([1.0], restic=[1.0]), "exclave", "borg", "first", "cpu_seconds") is None


def test_goals_are_met_and_missed_by_the_figures() -> None:
    from peers_report import goals

    judged = goals(result([1.0], restic=[2.0], borg=[1.0], pipe=[0.4]), "exclave")
    verdicts = {goal.what: goal.met for goal in judged}
    assert verdicts["ahead of restic, full restore, CPU"]
    assert not verdicts["ahead of borg, full restore, CPU"], "a draw is not ahead"
    assert verdicts["first backup, CPU of restic's"]
    assert not verdicts["nothing changed, CPU of restic's"]
    assert not verdicts["first backup, CPU of the pipe's"]
    assert verdicts["bytes of the change, of the better peer's"]
    assert verdicts["peak memory"]


def test_the_better_peer_is_the_one_that_grew_less() -> None:
    from peers_report import goals

    measured = result([1.0], restic=[2.0], borg=[2.0])
    measured["pairs"][1]["theirs"] = side(2.0, grown=20)
    growth = next(goal for goal in goals(measured, "exclave") if goal.what.startswith("bytes"))
    assert (growth.value, growth.met) == (0.5, False)


def test_table_and_picture_show_every_cell() -> None:
    from peers_picture import draw
    from peers_report import table

    measured = result([1.0, 1.2], restic=[2.0, 2.0], pipe=[9.0, 9.0])
    shown = table(measured)
    assert "0.55 [0.50-0.60]" in shown
    assert "full verify" in shown
    assert "borg" not in shown
    picture = ET.fromstring(draw([measured]))
    bars = [one for one in picture.iter("{http://www.w3.org/2000/svg}rect") if len(one)]
    assert len(bars) == 10
    assert "T & T" in "".join(picture.itertext())


def test_a_tree_of_processes_is_measured_whole(tmp_path: Path) -> None:
    from peers_measure import ProgramFailedError, run

    burn = "import time\nwhile time.process_time() < 0.3: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}], check=True)"
    cost = run([sys.executable, "-c", child], env={}, cwd=tmp_path, log=tmp_path / "log")
    assert cost.cpu_seconds >= 0.3
    assert cost.peak_bytes > 1e6
    with pytest.raises(ProgramFailedError, match="exit code 3"):
        run([sys.executable, "-c", "raise SystemExit(3)"], env={}, cwd=tmp_path, log=tmp_path / "log")


def test_a_set_goes_to_its_second_state_and_back(tmp_path: Path) -> None:
    from peers_data import prepare

    data = prepare("small", tmp_path, 0.0005)
    names = sorted(path.relative_to(data.live) for path in data.live.rglob("*.json"))
    before = {
        name: ((data.live / name).read_bytes(), (data.live / name).stat().st_mtime_ns) for name in names
    }
    data.change()
    changed = [name for name in names if (data.live / name).read_bytes() != before[name][0]]
    assert len(changed) == 1
    assert (data.live / changed[0]).stat().st_mtime_ns != before[changed[0]][1]
    data.reset()
    assert {n: ((data.live / n).read_bytes(), (data.live / n).stat().st_mtime_ns) for n in names} == before


def test_an_orphan_that_ended_before_is_nobodys_cost(tmp_path: Path) -> None:
    """In a process of its own: adopting orphans would change this one."""
    program = """
import subprocess, sys, time
from pathlib import Path
from peers_measure import adopt_orphans, run
adopt_orphans()
burn = "import os, time; os.fork() and os._exit(0)\\nwhile time.process_time() < 0.6: pass"
subprocess.run([sys.executable, "-c", burn], check=True)
time.sleep(2.5)
quiet = run(["true"], env={}, cwd=Path("."), log=Path("log"))
print(quiet.cpu_seconds)
"""
    from peers_measure import __file__ as beside

    environment = {"PYTHONPATH": str(Path(beside).parent), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.3
