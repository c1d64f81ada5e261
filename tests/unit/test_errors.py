from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import hmi.errors
from hmi.errors import HmiError

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for package in ("hmi", "api", "worker") for path in (ROOT / package).rglob("*.py"))

# Programs hold on to these: a change here is a change of the public interface.
CODES = {
    "HmiError": "internal_error",
    "InvalidInput": "invalid_input",
    "AdapterRefused": "adapter_refused",
    "ContextTooLong": "context_length_exceeded",
    "Unauthenticated": "invalid_api_key",
    "Forbidden": "forbidden",
    "NotFound": "not_found",
    "Conflict": "conflict",
    "LeaseLost": "lease_lost",
    "Overloaded": "overloaded",
    "TooLarge": "adapter_too_large",
    "StorageFull": "storage_full",
    "Corrupt": "corrupt",
    "Cancelled": "cancelled",
    "Transient": "temporarily_unavailable",
}


def all_errors(parent: type[HmiError] = HmiError) -> list[type[HmiError]]:
    below = [error for child in parent.__subclasses__() for error in all_errors(child)]
    return [parent, *(error for error in below if error.__module__ == hmi.errors.__name__)]


def drawn_tree() -> dict[str, str | None]:
    """Each class drawn in the module's docstring, with the one it hangs from."""
    line: list[str] = []
    parents: dict[str, str | None] = {}
    for drawn in (hmi.errors.__doc__ or "").splitlines():
        if match := re.match(r"^    ((?:\|   |    )*(?:\|-- |`-- )?)([A-Z]\w+)(?:\s|$)", drawn):
            depth = len(match[1]) // 4
            line[depth:] = [match[2]]
            parents[match[2]] = line[depth - 1] if depth else None
    return parents


def test_drawn_tree_is_the_tree_of_classes() -> None:
    expected: dict[str, str | None] = {error.__name__: error.__mro__[1].__name__ for error in all_errors()[1:]}
    assert drawn_tree() == {"HmiError": None, **expected}


def test_codes_are_unique_and_stable() -> None:
    found = {error.__name__: error.default_code for error in all_errors()}
    assert found == CODES
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
def test_error_carries_message_code_and_param(error: type[HmiError]) -> None:
    plain, fine = error("no such file"), error("no such file", code="finer", param="input")
    assert (str(plain), plain.message, plain.code, plain.param) == ("no such file",) * 2 + (error.default_code, None)
    assert (fine.code, fine.param) == ("finer", "input")


def test_only_transient_conditions_are_retryable() -> None:
    retryable = {error.__name__ for error in all_errors() if error.retryable}
    assert retryable == {"Overloaded", "StorageFull", "Transient"}


def published(tree: ast.Module) -> list[str] | None:
    """The names in a module's `__all__`, None where it has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["__all__"]:
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def defined(tree: ast.Module) -> set[str]:
    """Names bound at a module's top level."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def in_order(name: str) -> tuple[int, list[int | str]]:
    """Constants, then classes, then functions; numbers within a name count as numbers."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_all_is_sorted_and_names_what_is_there(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = published(tree)
    if names is None and path.name != "__init__.py":
        return  # a module inside a package, whose face has the names
    if names is None:
        own = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]
        public = [node.name for node in own if not node.name.startswith("_")]
        assert not public, "__all__ is missing"
        return
    assert names == sorted(set(names), key=in_order)
    modules = {each.stem for each in path.parent.iterdir()} if path.name == "__init__.py" else set()
    assert set(names) <= defined(tree) | modules
