"""Knowledge trees at scale: how fast rows are looked up, how fast trees are rebuilt, what they take on disk.

    python -m benchmarks.tree [--quick] [--json] [--part lookup] [--folder DIR]

Everything runs on one thread. Each part says in its own module what it measures; the report has the figures of all of
them side by side. A full run writes tables of 10 million entries (8 GB) into a folder that is deleted afterwards;
`--quick` has small ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import as_table, make_parser
from benchmarks.harness import machine, versions
from benchmarks.tree.beside import run as run_beside
from benchmarks.tree.lookup import run as run_lookup
from benchmarks.tree.rebuild import run as run_rebuild

Part = Callable[[argparse.Namespace], dict[str, Any]]
"""Takes the options, among them `quick` and `folder` (a `Path` to write into), and returns figures by name; a list of
dicts with the same names becomes a table."""

PARTS: dict[str, Part] = {
    "lookup": run_lookup,
    "rebuild": run_rebuild,
    "beside": run_beside,
}


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    torch.set_num_threads(1)
    report: dict[str, Any] = {"machine": machine(torch.device("cpu")), "versions": versions("numpy", "torch", "lmdb")}
    for name in options.part or PARTS:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            report |= PARTS[name](argparse.Namespace(**{**vars(options), "folder": Path(folder)}))
    print(json.dumps(report, indent=1) if options.json else _as_text(report))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("tree", __doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="this part alone; may be given again")
    parser.add_argument("--folder", type=Path, help="where tables are written; default: the system's temporary folder")
    return parser.parse_args(argv)


def _as_text(report: dict[str, Any]) -> str:
    figures = {key: value for key, value in report.items() if not isinstance(value, list)}
    lines = [f"{key}: {value}" for key, value in figures.items()]
    for key, rows in report.items():
        if isinstance(rows, list) and rows:
            lines += ["", f"{key}:", as_table(tuple(rows[0]), [tuple(row.values()) for row in rows])]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
