"""The upper layers alone: one forward on all cores against one on each, and the share of the GEMM rate they reach.

    python -m benchmarks.forward [--quick] [--json] [--device cpu] [--dtype bfloat16] [--shape base] [--k 6]

Random weights, full batches, no adapters, states that are there already: what is left of the processor's rate when
everything but the layers is taken away. `one` is a forward with all threads; `lanes` are as many forwards at a time as
the engine runs, each with its share of the threads. `first_only` batches are those whose heads read the first token.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import threading
import time
from typing import Any

from hmi.process import tune_process

tune_process(os.environ)  # before anything imports torch

import torch  # noqa: E402

from benchmarks.flops import forward_flops  # noqa: E402
from benchmarks.harness import GemmMeter, alternate, machine, measure_memory_rate, synchronise  # noqa: E402
from benchmarks.options import add_options  # noqa: E402
from benchmarks.tables import as_table  # noqa: E402
from hmi.bench import SHAPES, Shape  # noqa: E402
from hmi.devices import resolve_device, resolve_dtype  # noqa: E402
from hmi.engine import resolve_lanes  # noqa: E402
from hmi.models.families import HBert, ServedBert  # noqa: E402
from hmi.spec import Family, HPLMSpec  # noqa: E402

TOKENS = 64
ROWS = (8, 16, 32, 64)
_SEQUENCES = 256  # run in each turn


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    device, shape = resolve_device(options.device), SHAPES[options.shape]
    dtype = resolve_dtype(options.dtype, device)
    k = shape.num_hidden_layers // 2 if options.k is None else options.k
    threads = torch.get_num_threads()
    lanes = resolve_lanes(0, threads, device)
    gemm = GemmMeter(shape, 64 * TOKENS, device, dtype)
    gemm.measure()
    model = _model(shape, k, device, dtype)
    cases = []
    for first_only, rows in itertools.product((True, False), (64,) if options.quick else ROWS):
        seconds = alternate(
            {
                "one": lambda: _seconds(model, rows, 1, threads, first_only=first_only),  # noqa: B023 - called at once
                "lanes": lambda: _seconds(model, rows, lanes, threads // lanes, first_only=first_only),  # noqa: B023
            },
            options.rounds,
        )
        gemm.measure()
        flops = forward_flops(shape, TOKENS, layers=shape.num_hidden_layers - k, first_only=first_only)
        case: dict[str, Any] = {"first_only": first_only, "rows": rows}
        for way, times in seconds.items():
            case[way] = {"seq_s": _SEQUENCES / statistics.median(times)}
            case[way]["fraction_of_gemm"] = case[way]["seq_s"] * flops / gemm.flops_per_second
        cases.append(case)
    report = {
        **machine(device),
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "shape": options.shape,
        "k": k,
        "tokens": TOKENS,
        "lanes": lanes,
        "rounds": options.rounds,
        "gemm_tflops": round(gemm.flops_per_second / 1e12, 3),
        "memory_gb_s": round(measure_memory_rate(device) / 1e9, 1),
        "cases": cases,
    }
    print(json.dumps(report, indent=1) if options.json else _as_text(report))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--k", type=int, help="lower layers that are looked up; default: half of all")
    parser.add_argument("--rounds", type=int, default=5)
    add_options(parser)
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds = min(options.rounds, 3)
    return options


def _model(shape: Shape, k: int, device: torch.device, dtype: torch.dtype) -> ServedBert:
    spec = HPLMSpec(
        family=Family.BERT,
        vocab_size=100,
        hidden_size=shape.hidden_size,
        layers=shape.num_hidden_layers,
        heads=shape.num_attention_heads,
        intermediate_size=shape.intermediate_size,
        max_positions=TOKENS,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        activation="gelu",
        pad_token_id=0,
        k=k,
    )
    torch.manual_seed(0)
    model = HBert(spec).requires_grad_(requires_grad=False)
    for parameter in model.parameters():
        parameter.normal_(0, 0.02)
    return ServedBert(model.to(device, dtype))


def _seconds(model: ServedBert, rows: int, lanes: int, threads: int, *, first_only: bool) -> float:
    """Of all sequences, from the moment when every lane has warmed up until the last is done."""
    ready = threading.Barrier(lanes + 1)
    batches = max(1, _SEQUENCES // rows // lanes)

    @torch.inference_mode()
    def lane() -> None:
        torch.set_num_threads(threads)
        x = torch.randn(rows, TOKENS, model.spec.hidden_size).to(model.device, model.dtype)
        model.upper(x, first_only=first_only)
        ready.wait()
        for _ in range(batches):
            model.upper(x, first_only=first_only)
        synchronise(model.device)

    before = torch.get_num_threads()
    workers = [threading.Thread(target=lane) for _ in range(lanes)]
    for worker in workers:
        worker.start()
    ready.wait()
    begin = time.perf_counter()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - begin
    torch.set_num_threads(before)
    return seconds * _SEQUENCES / (batches * rows * lanes)


def _as_text(report: dict[str, Any]) -> str:
    lines = [f"{key}: {value}" for key, value in report.items() if key != "cases"]
    rows = [
        [case["first_only"], case["rows"], *(round(case[way][key], 3) for way in ("one", "lanes") for key in case[way])]
        for case in report["cases"]
    ]
    header = ["first only", "rows", "one seq/s", "of GEMM", "lanes seq/s", "of GEMM"]
    return "\n".join([*lines, as_table(header, rows)])


if __name__ == "__main__":
    main()
