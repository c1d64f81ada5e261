"""Sequences per second of HMI and of what a user would otherwise take, in one run.

    python -m benchmarks.peers [--quick] [--json] [--device cpu] [--dtype bfloat16] [--shape base]

All engines serve the same tenants from the same files: BERT with random weights, a LoRA of rank 16 on q and v and a
classification head for each tenant. The tenants of a batch take turns. HMI is counted from token ids submitted to
outcomes received, through its public face; peers from token ids to probabilities on the host. "tuned" peers run with
the process settings that HMI makes for itself.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path

from benchmarks.command import make_parser
from benchmarks.peers.contender import CONTENDERS, EXTRAS
from benchmarks.peers.fleet import Fleet
from benchmarks.peers.report import as_text
from hmi.bench import SHAPES


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Fleet(CONTENDERS if options.quick else CONTENDERS + EXTRAS, folder) as fleet:
            from benchmarks.peers.driver import drive  # noqa: PLC0415 - torch loads here while engines load it too

            report = drive(fleet, folder, options)
    print(json.dumps(report, indent=1) if options.json else as_text(report))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("peers", __doc__)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--k", type=int, help="lower layers that hmi_k6 looks up; half of all when not given")
    parser.add_argument("--tokens", type=int, default=64, help="of every sequence")
    parser.add_argument("--sequences", type=int, default=64, help="in a batch")
    parser.add_argument("--tenants", type=int, default=32, help="distinct ones in a batch")
    parser.add_argument("--rounds", type=int, default=7, help="counted ones, after one that is not")
    options = parser.parse_args(argv)
    layers = SHAPES[options.shape].num_hidden_layers
    options.k = layers // 2 if options.k is None else options.k
    if not 0 < options.k < layers:
        parser.error(f"--k must be from 1 to {layers - 1}")
    options.command = shlex.join(["python", "-m", "benchmarks.peers", *(sys.argv[1:] if argv is None else argv)])
    if options.quick:
        options.rounds = min(options.rounds, 2)
    return options


if __name__ == "__main__":
    main()
