"""hmi bench"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hmi.bench import JobRun

app = typer.Typer(no_args_is_help=True, help="Measure the engine on this machine. Needs no services.")


class _Shape(StrEnum):
    """The names in `hmi.bench.SHAPES`, which would load torch before the help is printed."""

    TINY = "tiny"
    MINILM = "minilm"
    BASE = "base"


@app.command(
    epilog="Examples: `hmi bench trace`, `hmi bench trace --shape base --k 6 --items 1000`, "
    "`hmi bench trace --output run.json --json`"
)
def trace(
    output: Annotated[Path, typer.Option("--output", "-o", help="Trace file to write, for Perfetto.")] = Path(
        "trace.json"
    ),
    items: Annotated[int, typer.Option(min=1, help="Texts of the job, 8 to 64 tokens each.")] = 2_000,
    tenants: Annotated[int, typer.Option(min=1, help="Each has an adapter of its own.")] = 200,
    shape: Annotated[_Shape, typer.Option(help="Sizes of the base model; its weights are random.")] = _Shape.MINILM,
    k: Annotated[int, typer.Option(min=0, help="Lower layers that are looked up; 0 computes them all.")] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Run a job of many tenants and write what every stage did when.

    Adapters start on disk, so the trace shows whether tokenising, lookups and loading overlap the device's work.
    """
    import json
    import tempfile

    from hmi.process import tune_process

    tune_process(os.environ)
    _require_place(output)

    from hmi.bench import JobPlan, make_job, run_job
    from hmi.devices import resolve_device, resolve_dtype
    from hmi.engine import EngineConfig

    resolve_dtype(dtype, resolve_device(device))
    plan = JobPlan(shape.value, k, items, tenants)
    with tempfile.TemporaryDirectory(prefix="hmi-bench-") as folder:
        run = run_job(make_job(Path(folder), plan), EngineConfig(device=device, dtype=dtype))
    run.tracer.write(output)
    figures = _figures(run)
    if as_json:
        typer.echo(json.dumps({**figures, "trace": str(output)}, indent=1))
        return
    typer.echo(
        f"{run.items:,} texts ({run.tokens:,} tokens) of {tenants:,} tenants in {run.seconds:.1f} s: "
        f"{run.seq_s:,.0f} texts/s on {run.device} in {run.dtype}"
    )
    typer.echo(f"device stage busy           {run.device_busy_share:7.1%}  from its first to its last batch")
    typer.echo(f"                            {run.device_busy_share_of_job:7.1%}  of the whole job")
    typer.echo(f"fetching hidden             {run.fetch_hidden_share:7.1%}  look-ups and loads while the device ran")
    if run.tracer.dropped:
        typer.echo(f"{run.tracer.dropped:,} events were dropped: the shares above leave them out", err=True)
    typer.echo(f"{output}: open it in https://ui.perfetto.dev (it stays in the browser) or chrome://tracing")


def _require_place(path: Path) -> None:
    """Raise `InvalidInput` before a minute of work, not after it."""
    from hmi.errors import InvalidInput

    if path.is_dir():
        raise InvalidInput(f"cannot write {path}: it is a folder")
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"cannot write {path}: there is no folder {path.parent}")


def _figures(run: JobRun) -> dict[str, Any]:
    return {
        "items": run.items,
        "tokens": run.tokens,
        "seconds": round(run.seconds, 3),
        "seq_s": round(run.seq_s, 1),
        "device": run.device,
        "dtype": run.dtype,
        "device_busy_share": round(run.device_busy_share, 4),
        "device_busy_share_of_job": round(run.device_busy_share_of_job, 4),
        "fetch_hidden_share": round(run.fetch_hidden_share, 4),
        "dropped_events": run.tracer.dropped,
    }
