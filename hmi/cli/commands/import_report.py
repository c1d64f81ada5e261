"""What `hmi model import` says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from hmi.cli.commands.options import show
from hmi.cli.render import bytes_words, table

if TYPE_CHECKING:
    from hmi.training.imports import ImportedAdapter
    from hmi.training.reports import RetrainReport

__all__ = ["imported_lines", "show_report"]


def imported_lines(imported: ImportedAdapter, out: Path) -> str:
    """What was imported into the folder `out`."""
    found, origin = imported.adapter.summary(), imported.origin
    version = f" {origin.version}" if origin.version else ""
    named = f", trained on {origin.model!r} by its own account" if origin.model else ""
    lines = [
        f"{out}: {found['kind']} from {origin.library}{version}{named}",
        f"ranks {_listed(found['ranks'])}, layers {_listed(found['layers'])}, sites {_listed(found['sites'])}",
        f"labels {_listed(found['labels'] or ())}, {bytes_words(found['bytes'])}",
    ]
    return "\n".join(lines)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"


def show_report(report: RetrainReport, out: Path) -> None:
    """How the adapter does, and those that were trained beside it."""
    others = f"{report.dev_examples:,} chose the epoch" if report.dev_examples else "none chose an epoch"
    typer.echo(
        f"\ntrained on {report.train_examples:,} examples, {others}; "
        f"evaluated on {report.test_examples:,} others, in points:"
    )
    show(_table(report))
    for each in report.comparisons:
        if each.left_out:
            typer.echo(f"{each.name}: layers {_listed(each.left_out)} are looked up and have no adapter")
    for note in report.notes:
        typer.echo(note)
    names = ", ".join(f"{out.name}-{each.name}" for each in report.comparisons[1:])
    typer.echo(f"for `hmi model register`: {names}")


def _table(report: RetrainReport) -> Table:
    columns = ("adapter", report.metric.replace("_", " "), "macro F1", "to imported", "to k = 0", "layers run")
    return table(
        (*columns, "bytes", "seconds"),
        [
            (
                f"{each.name} on {each.base}{' with delta' if each.delta else ''}",
                f"{100 * each.metrics[report.metric]:.1f}",
                f"{100 * each.metrics['macro_f1']:.1f}",
                str(each.to_imported.score) if each.to_imported else "-",
                str(each.to_retrained.score) if each.to_retrained else "-",
                f"{each.layers - each.k} of {each.layers}",
                bytes_words(each.bytes),
                "-" if each.seconds is None else f"{each.seconds:.1f}",
            )
            for each in report.comparisons
        ],
    )
