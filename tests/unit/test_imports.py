"""The arrows of ARCHITECTURE.md: who may import whom."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("hmi", "api", "worker", "migrations", "benchmarks", "examples", "tests")

# Rooms of hmi by floor, from the top: an import goes down or stays on its floor.
FLOORS = (
    {"cli"},
    {"bench"},
    {"jobs", "training"},
    {"engine"},
    {"models"},
    {"adapters", "knowledge", "catalog", "schemas"},
    {"artifacts", "devices", "die_with_parent", "errors", "items", "jsonlines", "locks", "logs", "process"}
    | {"settings", "spec", "stats", "storage", "tenant_bits"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Rooms that must not know each other although their floors would allow it.
APART = {
    ("engine", "catalog"),
    ("engine", "jobs"),
    ("training", "catalog"),
    ("training", "engine"),
    ("models", "knowledge"),
    ("adapters", "knowledge"),
    ("adapters", "catalog"),
    ("catalog", "knowledge"),
}

# The contract needs pydantic, and of hmi these rooms alone.
SCHEMAS_IMPORT = {"errors", "items", "jsonlines", "spec"}

# Rooms that run on a bare GPU machine, and all that they may import there.
BARE_ROOMS = {"bench", "engine", "training", "models", "adapters", "knowledge", "artifacts"}
BARE_ROOMS |= {"devices", "errors", "items", "jsonlines", "locks", "process", "spec", "stats", "storage", "tenant_bits"}
BARE_PACKAGES = {
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "fsspec",
    "jinja2",
}  # jinja2 comes with torch
BARE_PACKAGES |= {"huggingface_hub"}  # comes with transformers and tokenizers
BARE_PACKAGES |= {"triton"}  # comes with CUDA builds of torch; hmi imports without it, see below
BARE_PACKAGES |= {"gguf"}  # what transformers itself needs to read a GGUF file; imported where one is read

TORCH = {"torch", "transformers", "peft"}
TORCH_ROOMS = {"bench", "devices", "engine", "training", "models"}
TORCH_PACKAGES = ("hmi.adapters.maths", "hmi.adapters.tiers")

# Requests for trainings and their reports: the API reads them without torch.
TORCH_FREE = {"hmi.models.text", "hmi.training.data", "hmi.training.plan", "hmi.training.reports"}


@dataclass(frozen=True, slots=True)
class Import:
    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imports_of(name: str, path: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(name, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield Import(name, full if full in modules() else node.module, node.lineno)


@cache
def imports() -> tuple[Import, ...]:
    return tuple(each for name, path in modules().items() for each in imports_of(name, path))


def package_of(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def room_of(module: str) -> str | None:
    """`engine` for `hmi.engine.engine`; None for `hmi` itself and for other packages."""
    parts = module.split(".")
    return parts[1] if parts[0] == "hmi" and len(parts) > 1 else None


def between_rooms() -> Iterator[tuple[str, str, Import]]:
    for each in imports():
        importer, imported = room_of(each.importer), room_of(each.imported)
        if importer and imported and importer != imported:
            yield importer, imported, each


def test_every_room_has_its_floor() -> None:
    rooms = {room for room in map(room_of, modules()) if room}
    assert rooms - set(FLOOR) == set()


@pytest.mark.parametrize(
    ("importer", "allowed"),
    [
        ("hmi", {"hmi", "migrations", "examples"}),
        ("api", {"api", "hmi"}),
        ("worker", {"worker", "hmi"}),
        ("migrations", {"migrations", "hmi"}),
        ("examples", {"examples", "hmi"}),
    ],
)
def test_packages_import_only_what_lies_below(importer: str, allowed: set[str]) -> None:
    ours = [
        each for each in imports() if package_of(each.importer) == importer and package_of(each.imported) in PACKAGES
    ]
    assert [str(each) for each in ours if package_of(each.imported) not in allowed] == []


def test_imports_within_hmi_go_down() -> None:
    up = [str(each) for importer, imported, each in between_rooms() if FLOOR[importer] > FLOOR[imported]]
    assert up == []


def test_rooms_that_stay_apart_do_not_import_each_other() -> None:
    pairs = APART | {(imported, importer) for importer, imported in APART}
    met = [str(each) for importer, imported, each in between_rooms() if (importer, imported) in pairs]
    assert met == []


def test_schemas_import_plain_data_alone() -> None:
    others = [
        str(each)
        for importer, imported, each in between_rooms()
        if importer == "schemas" and imported not in SCHEMAS_IMPORT
    ]
    assert others == []


def test_rooms_form_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for importer, imported, _ in between_rooms():
        graph.setdefault(importer, set()).add(imported)
    TopologicalSorter(graph).prepare()  # raises CycleError naming it


def test_bare_rooms_import_nothing_but_their_few_packages() -> None:
    known = BARE_PACKAGES | set(sys.stdlib_module_names) | {"hmi"}
    surplus = [
        str(each)
        for each in imports()
        if room_of(each.importer) in BARE_ROOMS and package_of(each.imported) not in known
    ]
    assert surplus == []


def test_torch_stays_in_its_rooms() -> None:
    breaches = [
        str(each)
        for each in imports()
        if package_of(each.imported) in TORCH
        and package_of(each.importer) in {"hmi", "api"}
        and room_of(each.importer) not in TORCH_ROOMS
        and not each.importer.startswith(TORCH_PACKAGES)
    ]
    assert breaches == []


def test_every_package_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[\[<>=!;~ ]", each, maxsplit=1)[0].lower().replace("_", "-") for each in declared}
    known = set(sys.stdlib_module_names) | set(PACKAGES) | {"adapters", "polylora"}  # which `make` puts aside
    found = packages_distributions()

    def owners_of(package: str) -> set[str]:
        # A package that is not made for this platform is not here to be asked, and goes by its own name.
        return {owner.lower().replace("_", "-") for owner in found.get(package, [package])}

    undeclared = [
        str(each)
        for each in imports()
        if package_of(each.imported) not in known and not names & owners_of(package_of(each.imported))
    ]
    assert undeclared == []


def run_python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def importable(names: set[str]) -> list[str]:
    """Modules of these packages and rooms, and those named; running a `__main__` is not importing it."""
    return [
        name
        for name in modules()
        if not name.endswith("__main__") and ({package_of(name), room_of(name), name} & names)
    ]


IMPORT_ALL = "import importlib, sys\nfor name in {names!r}:\n    importlib.import_module(name)\n"


@pytest.mark.parametrize(
    "names",
    [{"api"}, {"knowledge", "catalog", "jobs", "schemas", "artifacts", "settings"}, {"cli"}, TORCH_FREE],
    ids=sorted,
)
def test_torch_is_not_loaded_when_importing(names: set[str]) -> None:
    program = IMPORT_ALL.format(names=importable(names))
    assert run_python(program + f"print(sorted({TORCH!r} & set(sys.modules)))") == "[]"


def test_engine_imports_when_the_server_packages_are_missing() -> None:
    absent = ["pydantic", "pydantic_settings", "structlog", "sqlalchemy", "alembic", "celery", "kombu", "redis"]
    absent += ["fastapi", "starlette", "uvicorn", "prometheus_client", "tenacity", "peft", "openai", "flower"]
    absent += ["triton"]  # builds of torch for CPUs come without
    names = importable(BARE_ROOMS)
    assert "hmi.items" in names
    # A module that is None in sys.modules cannot be imported, and is not found by those who only look.
    block = f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\n"
    run_python(block + IMPORT_ALL.format(names=names))


def test_absent_package_is_noticed_when_one_is_imported() -> None:
    """The check above can fail."""
    with pytest.raises(AssertionError, match="pydantic"):
        run_python("import sys\nsys.modules.update(dict.fromkeys(['pydantic']))\nimport hmi.settings")
