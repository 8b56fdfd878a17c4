"""One list of checks for people and for CI, and targets that say what they do."""

import os
import re
import subprocess

import pytest


def test_ci_runs_what_make_test_runs(root):
    assert "exec make test" in (root / ".ci/run").read_text()
    assert re.search(
        r"^test:\n\t@scripts/environment test\n\t@scripts/checks$",
        (root / "Makefile").read_text(),
        re.MULTILINE,
    )


@pytest.mark.parametrize("program", [".ci/run", "scripts/checks", "scripts/environment", "scripts/lock"])
def test_programs_can_be_run(root, program):
    assert os.access(root / program, os.X_OK)
    shell = (root / program).read_text().splitlines()[0].removeprefix("#!").removeprefix("/usr/bin/env ")
    subprocess.run([shell, "-n", root / program], check=True)


def test_help_names_every_target(root):
    makefile = (root / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)) - {"help"}
    assert targets == set(re.findall(r'@echo "make ([a-z-]+) ', makefile))
    assert targets | {"help"} == set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split())


def test_every_target_sets_itself_up(root):
    recipes = re.split(r"^([a-z-]+):.*\n", (root / "Makefile").read_text(), flags=re.MULTILINE)[1:]
    for target, recipe in zip(recipes[::2], recipes[1::2], strict=True):
        if ".venv/bin/" in recipe:
            assert recipe.startswith("\t@scripts/environment "), target


def test_every_check_fails_the_run(tmp_path, root):
    """A copy of the list in which one program after the other fails."""
    names = re.findall(r"^check \S+ (\S+)", (root / "scripts/checks").read_text(), re.MULTILINE)
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    (tmp_path / "scripts").mkdir()
    checks = tmp_path / "scripts/checks"
    checks.write_bytes((root / "scripts/checks").read_bytes())
    for name in names:
        stand_in(programs / name, 0)
    assert subprocess.run(["sh", checks], capture_output=True, check=False).returncode == 0
    for name in dict.fromkeys(names):
        stand_in(programs / name, 1)
        result = subprocess.run(["sh", checks], capture_output=True, text=True, check=False)
        assert result.returncode == 1, name
        assert "FAILED:" in result.stdout
        stand_in(programs / name, 0)


def stand_in(path, code):
    path.write_text(f"#!/bin/sh\nexit {code}\n")
    path.chmod(0o755)
