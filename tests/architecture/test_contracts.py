"""Import contracts cover what they are about, also when a module is new, and notice when they are broken."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

# contract id -> modules that must be among its sources as soon as they exist
SOURCES = {
    "write-only-home": ["exclave.flows.protect", "exclave.flows.follow", "exclave.agents.home"],
    "keyless-verify": ["exclave.flows.verify", "exclave.flows.audit", "exclave.flows.heal"],
    "pure": [
        "exclave.sealed",
        "exclave.charter",
        "exclave.custody",
        "exclave.journal",
        "exclave.tlog",
        "exclave.policy",
        "exclave.healing",
        "exclave.recovery",
    ],
}
# and modules that must be among what it forbids
FORBIDDEN = {
    "write-only-home": [
        "exclave.sealed.opening",
        "exclave.crypto.open",
        "exclave.custody",
        "exclave.crypto.shares",
    ],
    "keyless-verify": [
        "exclave.sealed.opening",
        "exclave.crypto.open",
        "exclave.custody",
        "exclave.registers",
    ],
}


def contracts(root: Path) -> dict[str, dict]:
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    return {contract["id"]: contract for contract in settings["tool"]["importlinter"]["contracts"]}


@pytest.mark.parametrize(("table", "key"), [(SOURCES, "source_modules"), (FORBIDDEN, "forbidden_modules")])
def test_a_contract_covers_every_module_that_it_is_about(root, table, key):
    for contract_id, wanted in table.items():
        there = [name for name in wanted if exists(root, name)]
        assert set(there) <= set(contracts(root)[contract_id][key]), contract_id


# contract -> file of the package, and a line that breaks the contract there
BREACHES = [
    ("layers", "errors.py", "import exclave.codec"),
    ("pure", "sealed/names.py", "import os"),
    ("adapters", "registers/base.py", "import exclave.stores.base"),
    ("testing", "flows/protect.py", "import exclave.testing"),
    ("write-only-home", "flows/protect.py", "import exclave.sealed.opening"),
    ("keyless-verify", "flows/verify.py", "import exclave.registers.base"),
    ("door-cryptography", "sealed/names.py", "import cryptography"),
    ("door-cryptography", "registers/slabs.py", "import blake3"),
    ("door-obstore", "stores/base.py", "import obstore"),
    ("door-psycopg", "flows/protect.py", "import psycopg"),
    ("door-terminal", "flows/protect.py", "import rich"),
]


@pytest.mark.parametrize(("contract_id", "module", "line"), BREACHES)
def test_a_breach_is_noticed(root, tmp_path, contract_id, module, line):
    """A copy of the package's imports, with one forbidden line more."""
    copy = tmp_path / "src"
    skeleton(root / "src", copy)
    broken = copy / "exclave" / module
    broken.write_text(broken.read_text() + f"\n{line}\n")
    result = lint(root, copy, contract_id)
    importer = "exclave." + module.removesuffix(".py").replace("/", ".")
    told = f"{importer} -> {line.removeprefix('import ')} (l."
    assert result.returncode == 1, result.stdout + result.stderr
    assert told in result.stdout


def skeleton(source: Path, copy: Path) -> None:
    for path in source.rglob("*.py"):
        target = copy / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())


def lint(root: Path, source: Path, contract_id: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            Path(sys.executable).with_name("lint-imports"),
            "--no-cache",
            "--no-logo",
            "--config",
            root / "pyproject.toml",
            "--contract",
            contract_id,
        ],
        env={"PYTHONPATH": str(source), "PATH": "/usr/bin:/bin"},
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )


def exists(root: Path, name: str) -> bool:
    path = root / "src" / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()
