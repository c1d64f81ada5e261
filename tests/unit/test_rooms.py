"""Packages are small, have a face, and are imported through it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("hmi", "api", "worker", "benchmarks", "examples")
ENDINGS = ("ing", "ers", "ors", "er", "or", "ed", "es", "s", "d", "r", "e")  # the longest first


@cache
def trees() -> dict[str, tuple[Path, ast.Module]]:
    found = {}
    for top in PRODUCT:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path, ast.parse(path.read_text(encoding="utf-8"))
    return found


def packages() -> list[str]:
    return [name for name, (path, _) in trees().items() if path.name == "__init__.py"]


def exported(package: str) -> list[str] | None:
    for node in trees()[package][1].body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id == "__all__":
                names: list[str] = ast.literal_eval(node.value)
                return names
    return None


def in_order(names: list[str]) -> list[str]:
    """Constants, then classes, then the rest: the order that the linter sorts by."""
    return sorted(names, key=lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name))


@pytest.mark.parametrize("package", packages())
def test_every_package_says_what_is_in_it(package: str) -> None:
    description = ast.get_docstring(trees()[package][1])
    assert description
    assert len(description) > 40


@pytest.mark.parametrize("package", [each for each in packages() if each.split(".")[0] in ("hmi", "worker")])
def test_every_face_lists_its_names_in_order(package: str) -> None:
    names = exported(package)
    assert names is not None
    assert names == in_order(names)
    assert len(set(names)) == len(names)


def imports() -> Iterator[tuple[str, int, str, list[str]]]:
    for name, (_, tree) in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in trees():
                yield name, node.lineno, node.module, [alias.name for alias in node.names]


def is_inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def is_namespace(package: str) -> bool:
    """Its face lists modules and nothing else, so that they are public."""
    return bool(exported(package)) and all(f"{package}.{name}" in trees() for name in exported(package) or ())


def test_outsiders_import_through_the_face() -> None:
    breaches = []
    for importer, line, module, names in imports():
        package = module if module in packages() else module.rpartition(".")[0]
        if not package or package in PRODUCT or is_inside(importer, package):
            continue
        if is_namespace(package) and module.rpartition(".")[2] in (exported(package) or ()):
            continue
        if module != package:
            breaches.append(f"{importer}:{line} imports {module}, not {package}")
            continue
        listed = exported(package)
        breaches += [
            f"{importer}:{line}: {package} does not list {name}"
            for name in names
            if listed is not None and name not in listed
        ]
    assert breaches == []


def uses() -> Iterator[tuple[str, str, str]]:
    """Who uses which name of which package: imported from it, or read from the imported package itself."""
    files = [(name, tree) for name, (_, tree) in trees().items()]
    files += [("tests", ast.parse(path.read_text(encoding="utf-8"))) for path in (ROOT / "tests").rglob("*.py")]
    for name, tree in files:
        namespaces: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                package, _, module = node.module.rpartition(".")
                yield name, package, module
                for alias in node.names:
                    yield name, node.module, alias.name
                    namespaces[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            elif isinstance(node, ast.Import):
                namespaces |= {alias.asname or alias.name: alias.name for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in namespaces:
                yield name, namespaces[node.value.id], node.attr


def test_faces_list_only_what_outsiders_use() -> None:
    used = defaultdict(set)
    for user, package, name in uses():
        if not is_inside(user, package):
            used[package].add(name)
    surplus = {
        package: sorted(set(exported(package) or ()) - used[package] - {each.rpartition(".")[2] for each in packages()})
        for package in packages()
        if package.startswith(("hmi.", "worker."))
    }
    assert {package: names for package, names in surplus.items() if names} == {}


def stem(module: str) -> str:
    return next(
        (module.removesuffix(each) for each in ENDINGS if module.endswith(each) and len(module) > len(each) + 3), module
    )


def test_no_two_modules_of_a_package_differ_by_an_ending() -> None:
    by_package = defaultdict(list)
    for name in trees():
        package, _, module = name.rpartition(".")
        by_package[package, stem(module)].append(module)
    assert [f"{package}: {modules}" for (package, _), modules in by_package.items() if len(modules) > 1] == []


def test_no_class_name_means_two_things_in_one_room() -> None:
    places = defaultdict(list)
    for name, (_, tree) in trees().items():
        room = ".".join(name.split(".")[:2])
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[room, node.name].append(name)
    assert {f"{room} {cls}": where for (room, cls), where in places.items() if len(where) > 1} == {}
