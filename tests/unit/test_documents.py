"""What the documents name must exist: files, commands, targets, settings, links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import SecretStr

from hmi.cli.main import app
from hmi.settings import GROUPS, Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS: tuple[str, ...] = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
DOCUMENTS += tuple(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))
# Paths in the documents are from the top, or from `hmi/`.
FILE = re.compile(r"`((?:[a-z_]+/)+[a-z_0-9]+\.(?:py|yaml|svg|txt|md))`")
WORD = re.compile(r"`([a-z]+(?:_[a-z]+)+)`")


def text_of(document: str) -> str:
    return (ROOT / document).read_text()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_named_is_there(document: str) -> None:
    named = set(FILE.findall(text_of(document)))
    assert {name for name in named if not (ROOT / name).exists() and not (ROOT / "hmi" / name).exists()} == set()


def test_every_test_named_is_there() -> None:
    named = re.findall(r"`(tests/[a-z_0-9/]+\.py)(?:::(test_\w+))?`", text_of("docs/security.md"))
    assert len(named) > 10
    for file, test in named:
        assert not test or f"def {test}(" in text_of(file), f"{file}::{test}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_relative_link_leads_somewhere(document: str) -> None:
    folder = (ROOT / document).parent
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text_of(document))
    for link, anchor in links:
        if "://" in link:
            continue
        target = folder / link if link else ROOT / document
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_target_named_is_made(document: str) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", text_of("Makefile"), flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|\$ )make ([a-z0-9-]+)", text_of(document)))
    assert named - targets == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_named_is_taken(document: str) -> None:
    commands: dict[str, Any] = getattr(typer.main.get_command(app), "commands", {})
    for name, follower in re.findall(r"(?:`|\$ |\(|&& )hmi ([a-z]+)(?: ([a-z-]+))?", text_of(document)):
        assert name in commands
        below = getattr(commands[name], "commands", None)  # of a group; a plain command takes arguments
        assert below is None or not follower or follower in below


def test_settings_and_states_named_in_the_architecture_are_in_the_code() -> None:
    words = set(WORD.findall("".join(map(text_of, DOCUMENTS[:2]))))
    code = "\n".join(path.read_text() for room in ("hmi", "api", "worker") for path in (ROOT / room).rglob("*.py"))
    assert {word for word in words if not re.search(rf"\b{word}\b", code)} == set()
    assert "queued_timeout_seconds" in words & set(Settings.model_fields)


def settings_table() -> str:
    """Every setting as a row under its group's heading: variable, default, meaning."""
    lines: list[str] = []
    for name, field in Settings.model_fields.items():
        if name in GROUPS:
            lines += ["", f"### {GROUPS[name]}", "", "| variable | default | meaning |", "|---|---|---|"]
        shown = "" if field.default in (None, "") or isinstance(field.default, SecretStr) else f"`{field.default}`"
        lines.append(f"| `HMI_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines[1:])


def test_table_of_settings_is_the_codes() -> None:
    text = text_of("docs/operations.md")
    between = re.search(r"<!-- settings: begin -->\n\n(.*)\n\n<!-- settings: end -->", text, flags=re.DOTALL)
    assert between
    assert between.group(1) == settings_table(), f"docs/operations.md should have:\n{settings_table()}"
