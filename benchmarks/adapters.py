"""Where which way of applying adapters is fastest: the crossover table of `hmi.adapters.maths`.

    python -m benchmarks.adapters [--quick] [--json] [--device cuda] [--dtype bfloat16]

One LoRA at one place, width -> rank -> width, for 64 rows of a batch: rows of one tenant lie together, and the weights
lie in no order in an arena, as in the device tier. Every way adds to the same output, and is counted from the
arena on, in alternating rounds:

- gathered: the weights of every row are gathered, then two batched products.
- segments: the weights of every tenant are gathered, then two products for each tenant.
- kernel (where `kernels_run_on` says so): one launch that reads the weights where they are.

Each call reads other weights than the one before, as the layers of a model do. A figure is the median of the rounds, in
microseconds.

From them comes the rule that `hmi.adapters.maths` keeps. Segments spare the weights that would be gathered for a
tenant's second and further rows, rank * (rows / tenants - 1) vectors for each of their products; so they win from some
number of spared bytes on. Of all thresholds the one is taken that costs least over the cases: gathered up to
`gathered_to_kib`, segments from `segments_from_kib` on, and any number between is the same rule; `rows_of_one` says it
as rows of one tenant at each rank. `mean_cost` and `worst_cost` are what following the rule takes, as a multiple of
the faster of gathered and segments, and `cost_of_choose` is the mean for what `choose_method` says now.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.command import as_table, make_parser
from benchmarks.harness import alternate, machine, synchronise
from hmi.adapters.maths import Method, apply_segmented, choose_method, kernels_run_on, saved_bytes
from hmi.devices import resolve_device, resolve_dtype

ROWS = 64
LAYERS = 4  # sets of weights that are read in turn
RANKS, TOKENS, TENANTS = (4, 8, 16, 48, 64), (1, 16, 64, 256), (1, 2, 4, 8, 16, 32, 64)
QUICK_RANKS, QUICK_TOKENS = (8, 48), (16, 64)


@dataclass(frozen=True, slots=True)
class Case:
    """Medians of one shape, in microseconds, by way."""

    rank: int
    tokens: int
    rows: int
    tenants: int
    row_bytes: int
    microseconds: dict[Method, float]

    @property
    def spared_kib(self) -> float:
        return saved_bytes(self.rank, self.rows, self.tenants, self.row_bytes) / 1024

    def cost(self, method: Method) -> float:
        """As a multiple of the faster of gathered and segments."""
        return self.microseconds[method] / min(self.microseconds[each] for each in (Method.GATHERED, Method.SEGMENTS))


@dataclass(frozen=True, slots=True)
class Rule:
    """Where gathered ends and segments begin; None: there are no such cases."""

    gathered_to_kib: float | None
    segments_from_kib: float | None
    mean_cost: float
    worst_cost: float

    def rows_of_one(self, rank: int, row_bytes: int) -> int | None:
        """Rows of one tenant from which segments are chosen."""
        if self.segments_from_kib is None:
            return None
        return 1 + math.ceil(self.segments_from_kib * 1024 / (rank * row_bytes))


def derive(cases: Sequence[Case]) -> Rule:
    """The threshold that costs least on average."""
    spared = sorted({case.spared_kib for case in cases})

    def costs(gathered: int) -> list[float]:
        methods = dict.fromkeys(spared[:gathered], Method.GATHERED) | dict.fromkeys(spared[gathered:], Method.SEGMENTS)
        return [case.cost(methods[case.spared_kib]) for case in cases]

    best = min(range(len(spared) + 1), key=lambda gathered: statistics.fmean(costs(gathered)))
    found = costs(best)
    return Rule(
        gathered_to_kib=spared[best - 1] if best else None,
        segments_from_kib=spared[best] if best < len(spared) else None,
        mean_cost=round(statistics.fmean(found), 3),
        worst_cost=round(max(found), 3),
    )


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    ranks, tokens = options.ranks, QUICK_TOKENS if options.quick else TOKENS
    cases = []
    for rank in ranks:
        bench = _Bench(options.width, rank, max(tokens), device, dtype)
        cases += [bench.measure(*shape, options.rounds) for shape in itertools.product(tokens, TENANTS)]
    rule = derive(cases)
    row_bytes = options.width * dtype.itemsize
    report = {
        **machine(device),
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "width": options.width,
        "rows": ROWS,
        "rounds": options.rounds,
        "cases": [asdict(case) for case in cases],
        "rule": {
            **asdict(rule),
            "rows_of_one": {rank: rule.rows_of_one(rank, row_bytes) for rank in ranks},
            "cost_of_choose": round(statistics.fmean(case.cost(_chosen(case, device.type)) for case in cases), 3),
        },
    }
    print(json.dumps(report, indent=1) if options.json else _as_text(report, cases))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("adapters", __doc__)
    parser.add_argument("--width", type=int, default=768, help="hidden size")
    parser.add_argument("--ranks", type=int, nargs="+", help=f"default: {RANKS}, with --quick {QUICK_RANKS}")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(argv)
    if options.ranks is None:
        options.ranks = QUICK_RANKS if options.quick else RANKS
    return options


class _Bench:
    """Weights of ROWS tenants at one rank, and the ways over them."""

    def __init__(self, width: int, rank: int, tokens: int, device: torch.device, dtype: torch.dtype) -> None:
        self._rank, self._device = rank, device
        rows = LAYERS * ROWS * 2 * rank
        self._arena = (torch.randn(rows, width, device=device) * 0.02).to(dtype)
        # Where each layer's and tenant's two matrices lie: [layers, 2, tenants, rank]
        self._places = torch.randperm(rows, device=device).view(LAYERS, 2, ROWS, rank)
        self._x = torch.randn(ROWS, tokens, width, device=device).to(dtype)
        self._y = torch.zeros_like(self._x)

    @torch.inference_mode()
    def measure(self, tokens: int, tenants: int, rounds: int) -> Case:
        x, y = self._x[:, :tokens].contiguous(), self._y[:, :tokens].contiguous()
        size = ROWS // tenants
        of_tenants = self._places[:, :, :tenants].contiguous()
        of_rows = self._places[:, :, torch.arange(ROWS, device=self._device) // size].contiguous()
        ways: dict[Method, Callable[[int], None]] = {
            Method.GATHERED: lambda layer: _gathered(y, x, self._arena, of_rows[layer].view(-1), self._rank),
            Method.SEGMENTS: lambda layer: _segments(
                y, x, self._arena, of_tenants[layer].view(-1), self._rank, tenants
            ),
        }
        if kernels_run_on(self._device):
            starts = torch.arange(tenants, device=self._device).repeat_interleave(size) * self._rank
            offsets = torch.stack([starts, starts + tenants * self._rank])[None]
            ranks = torch.full((1, ROWS), self._rank, device=self._device)
            ways[Method.KERNEL] = lambda layer: apply_segmented(
                y, x, self._arena, ranks, offsets, of_tenants[layer].view(-1), self._rank
            )
        layers = itertools.cycle(range(LAYERS))
        for _ in range(2):  # not counted
            for way in ways.values():
                way(next(layers))
        seconds = alternate({method: partial(self._timed, way, layers) for method, way in ways.items()}, rounds)
        found = {Method(method): round(1e6 * statistics.median(times), 1) for method, times in seconds.items()}
        return Case(self._rank, tokens, ROWS, tenants, self._arena.shape[1] * self._arena.element_size(), found)

    def _timed(self, way: Callable[[int], None], layers: itertools.cycle[int]) -> float:
        # One call says nothing of a device that is given work ahead; a CPU is done when the call returns.
        calls = 1 if self._device.type == "cpu" else 20
        chosen = list(itertools.islice(layers, calls))
        synchronise(self._device)
        begin = time.perf_counter()
        for layer in chosen:
            way(layer)
        synchronise(self._device)
        return (time.perf_counter() - begin) / calls


def _chosen(case: Case, device_type: str) -> Method:
    method = choose_method(device_type, case.rank, case.rows, case.tenants, row_bytes=case.row_bytes)
    return method if method in case.microseconds else Method.GATHERED


def _gathered(y: Tensor, x: Tensor, arena: Tensor, index: Tensor, rank: int) -> None:
    a, b = functional.embedding(index, arena).view(2, len(x), rank, -1)
    y.baddbmm_(torch.bmm(x, a.transpose(1, 2)), b)


def _segments(y: Tensor, x: Tensor, arena: Tensor, index: Tensor, rank: int, tenants: int) -> None:
    a, b = functional.embedding(index, arena).view(2, tenants, rank, -1)
    size = len(x) // tenants
    for number in range(tenants):
        rows = slice(number * size, (number + 1) * size)
        y[rows].flatten(0, 1).addmm_(x[rows].flatten(0, 1) @ a[number].t(), b[number])


def _as_text(report: dict[str, Any], cases: Sequence[Case]) -> str:
    methods = list(cases[0].microseconds)
    rows = [
        [
            f"rank {case.rank}",
            case.tokens,
            case.tenants,
            round(case.spared_kib),
            *(round(case.microseconds[method]) for method in methods),
            min(methods, key=lambda method: case.microseconds[method]).value,
        ]
        for case in cases
    ]
    header = ["", "tokens", "tenants", "spared KiB", *(method.value for method in methods), "fastest"]
    rule = dict(report["rule"])
    from_rows = [[f"rank {rank}", rows_of_one] for rank, rows_of_one in rule.pop("rows_of_one").items()]
    lines = [f"{key}: {value}" for key, value in report.items() if key not in {"cases", "rule"}]
    lines += ["", as_table(header, rows), "", as_table(["segments from", "rows of one tenant"], from_rows), ""]
    return "\n".join([*lines, *(f"{key}: {value}" for key, value in rule.items())])


if __name__ == "__main__":
    main()
