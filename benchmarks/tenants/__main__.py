"""What ten thousand registered tenants cost beside one.

    python -m benchmarks.tenants [--quick] [--json] [--shape minilm] [--k 2] [--device cuda] [--dtype bfloat16]
                                 [--folder DIR] [--database postgresql://...]

Each tenant has an adapter file of its own: random weights, LoRA 4, 8, 16 and bottlenecks 16, 48 in turn. A job
is 2,048 texts of 8 to 64 tokens, tokenised, looked up (every window is in the tree) and classified, submitted as a
worker submits its shards. Whose texts they are is drawn by Zipf's law (exponent 1.0) or evenly.

The *working set* is what the adapters of the tenants in a job take on the device; `slots_share` is the share of it
that the device tier may hold. The host tier has the budget that engines have by default, unless
`--host-bytes` says otherwise. A case's first job finds every adapter on disk, out of the system's page cache,
and nowhere else (`cold_seq_s`); it is not counted further. After that a job asks for the same tenants in another
order each time. Cases of one traffic take turns with jobs of the same texts for one tenant alone, whose kind of
adapter is another in each round, and `ratio_vs_one_tenant` is that of the medians. `p50_ms` and `p95_ms` are
latencies of a submission of 64 texts while 16 are in flight.

`registration_last_over_first`: of 10,000 registrations of a tenant and its model in the catalog, one after the other,
the median time of the last 500 over that of the first 500.

The files take 0.9 MB a tenant for 768 wide models with 6 upper layers, about 9 GB in all; they are deleted in the end
unless `--folder` keeps them. `--quick` runs 384 texts for up to 1,000 tenants of a 6-layer MiniLM, 2 rounds and 1,000
registrations: it looks for what is broken, and a share of a small working set holds less than one batch asks for.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.command import make_parser
from benchmarks.tenants.plan import FULL, QUICK, TenantsPlan
from benchmarks.tenants.run import as_text, run_plan
from hmi.bench import SHAPES


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    with tempfile.TemporaryDirectory(prefix="hmi-bench-") as name:
        report = run_plan(Path(name), _plan(options))
    print(json.dumps(report, indent=1) if options.json else as_text(report))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("tenants", __doc__)
    parser.add_argument("--shape", choices=SHAPES, help="default: base, with --quick minilm")
    parser.add_argument("--k", type=int, help="lower layers that are looked up; default: half of them")
    parser.add_argument("--sequences", type=int, help="texts in a job")
    parser.add_argument("--tenants", type=int, nargs="+", help="numbers of registered tenants, beside one")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--registrations", type=int, help="0 leaves them out")
    parser.add_argument("--folder", type=Path, help="keep the adapters' files here, and use those that are there")
    parser.add_argument("--database", help="register in this empty database; default: SQLite in a temporary folder")
    parser.add_argument("--host-bytes", type=int, help="budget of the host tier")
    return parser.parse_args(argv)


def _plan(options: argparse.Namespace) -> TenantsPlan:
    preset = QUICK if options.quick else FULL
    shape = options.shape or preset.shape
    given = {
        "k": SHAPES[shape].num_hidden_layers // 2 if options.k is None else options.k,
        "sequences": options.sequences,
        "tenants": tuple(options.tenants) if options.tenants else None,
        "rounds": options.rounds,
        "registrations": options.registrations,
        "folder": options.folder,
        "database": options.database,
        "host_bytes": options.host_bytes,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    return preset.with_changes(shape=shape, device=options.device, dtype=options.dtype, **changes)


if __name__ == "__main__":
    main()
