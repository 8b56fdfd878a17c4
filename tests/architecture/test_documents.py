"""The documents say what the code is today."""

import ast
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def reference(root) -> ModuleType:
    spec = importlib.util.spec_from_file_location("exclave_reference", root / "scripts/reference.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_current(reference, root):
    stale = [path.relative_to(root) for path, text in reference.pages().items() if path.read_text() != text]
    assert not stale, f"make reference: {stale}"


def test_the_map_names_every_module_and_no_other(modules, root):
    text = (root / "ARCHITECTURE.md").read_text()
    told: set[str] = set()
    folder = ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"### `(.+)/`", line):
            folder = "" if heading[1] == "exclave" else heading[1] + "/"
        elif row := re.match(r"\| `(\w+)` \|", line):
            told.add(f"src/exclave/{folder}{row[1]}.py")
    assert told == {path for path in modules if not path.endswith("/__init__.py")}


def test_every_verb_is_documented(root):
    from exclave.cli.main import VERBS

    text = (root / "docs/reference/cli.md").read_text()
    assert [verb for verb in VERBS if f"\n## exclave {verb}\n" not in text] == []


def test_exit_codes_on_the_page_are_those_of_the_errors(reference):
    from exclave import errors

    told = {code for code, _, _ in reference.EXIT_CODES}
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ExclaveError)
    ]
    assert {kind.exit_code for kind in kinds} <= told


def test_links_between_documents_lead_somewhere(root):
    broken = []
    for page in [root / "README.md", root / "ARCHITECTURE.md", *sorted((root / "docs").rglob("*.md"))]:
        targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
        broken += [
            f"{page.relative_to(root)} -> {target}"
            for target in targets
            if "://" not in target and not (page.parent / target).exists()
        ]
    assert not broken, broken


def test_the_index_of_the_documents_names_every_page(root):
    index = (root / "docs/README.md").read_text()
    pages = [p.relative_to(root / "docs").as_posix() for p in (root / "docs").rglob("*.md")]
    assert [page for page in pages if page != "README.md" and f"({page})" not in index] == []


def test_every_dependency_has_its_reason(root):
    reasons = (root / "docs/decisions/0009-dependencies.md").read_text()
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(d for extra in project["optional-dependencies"].values() for d in extra),
    ]
    names = [re.match(r"[A-Za-z0-9._-]+", line)[0] for line in wanted]
    assert [name for name in names if f"| `{name}`" not in reasons] == []


def test_every_dependency_is_used(root, modules):
    dependencies = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    imported = {name.split(".")[0] for tree in modules.values() for name in imports(tree)}
    names = {re.match(r"[A-Za-z0-9_-]+", line)[0].replace("-", "_") for line in dependencies}
    assert names - imported == set()


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_every_setting_is_documented(root, modules):
    """Each key that config.py reads, under the table in which it reads it."""
    readers = {"parse": "Top", "_realm": "[realm]", "_home": "[home]", "_register": "[[register]]"}
    readers |= {"_embassy": "[[embassy]]", "_activation": "[activation]"}
    sections = re.split(
        r"^## `?([^`\n]+)`?$", (root / "docs/reference/settings.md").read_text(), flags=re.MULTILINE
    )
    told = {
        name: set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
        for name, text in zip(sections[1::2], sections[2::2], strict=True)
    }
    read: dict[str, set[str]] = {}
    for function in modules["src/exclave/config.py"].body:
        if isinstance(function, ast.FunctionDef) and function.name in readers:
            read[readers[function.name]] = {
                call.args[0].value
                for call in ast.walk(function)
                if isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and call.func.attr in {"text", "texts", "path", "maybe_path", "number", "one_of"}
            }
    assert read == told
