"""What the command lines of all benchmarks share: options, the cache, tables. Loads no torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m benchmarks.NAME` with `--device`, `--dtype`, `--quick` and `--json`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under a minute")
    parser.add_argument("--json", action="store_true", help="the report as JSON instead of a table")
    return parser


def report_progress(line: str) -> None:
    """Print a line to standard error, beside the report."""
    print(line, file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """Where downloads, and what takes long to make, are kept for all runs of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmi"


def as_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Plain text: the first column to the left, the others to the right; floats with three digits, None as a dash."""
    texts = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
