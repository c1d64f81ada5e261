"""hmi build"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmi.cli.options import AsJson

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Make the parts of a hierarchical model from text. Needs no services.")


@app.command(
    epilog="Examples: `hmi build domain reviews.txt --base ./minilm-k2 --out ./reviews`, "
    "`hmi build domain movies.txt --base ./minilm-k2 --out ./movies --above ./reviews`"
)
def domain(
    text: Annotated[Path, typer.Argument(help="The domain's text, one sentence or so a line; no labels.")],
    base: Annotated[Path, typer.Option(help="Base model folder from `hmi base build`, with k > 0.")],
    out: Annotated[Path, typer.Option(help="Folder to make, with the delta in it.")],
    above: Annotated[
        Path | None, typer.Option(help="Folder of the delta of the nearest domain above that has one, to refine it.")
    ] = None,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the LoRA pairs; it adds to that of the delta above.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Of the optimiser.")] = 300,
    batch_size: Annotated[int, typer.Option(min=1, help="Lines in one step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="The highest; it rises to it and falls to zero.")] = 4e-3,
    nearness: Annotated[
        float,
        typer.Option(min=0, help="What it costs to differ from the rows above; 0 for the root, which has none above."),
    ] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longer lines are cut.")] = 128,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda:0.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Train a domain delta: lower layers that fit one domain's text better, for the rows of its own windows.

    It is distilled from the unchanged model, so that states after the lookup come nearer to that model's.
    """
    import dataclasses
    import json
    import os

    from hmi.cli.textfiles import read_lines
    from hmi.engine.cores import tune_process
    from hmi.errors import Conflict

    tune_process(os.environ)
    if out.exists():
        raise Conflict(f"{out} is there already; remove it or choose another folder")
    # Read before torch is loaded, which takes seconds: a mistake in the file shows at once.
    lines = read_lines(text)

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from hmi.adapters.canonical import FILE_NAME, load_adapter, save_adapter
    from hmi.training.domain import DeltaConfig, DeltaProgress, train_delta

    config = DeltaConfig(
        rank=rank,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        nearness=nearness,
        max_tokens=max_tokens,
        seed=seed,
        device=device,
    )
    columns = (TextColumn("steps"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=steps)

        def show(progress: DeltaProgress) -> None:
            left = f"error {progress.loss**0.5:.3f}, {progress.seconds_left:.0f} s left"
            bar.update(task, completed=progress.done, description=left)

        refined = load_adapter(above / FILE_NAME) if above else None
        trained = train_delta(base, lines, config, above=refined, on_progress=show)
    out.mkdir(parents=True)
    save_adapter(trained.delta, out / FILE_NAME)
    report = trained.report
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report), indent=1))
        return
    typer.echo(
        f"{out}: rank {trained.delta.rank} on the lower layers from {report.texts} lines in {report.seconds:.1f} s"
    )
    typer.echo(
        f"error of the last layer's states against the unchanged model: {report.before.upper:.3f} without it, "
        f"{report.after.upper:.3f} with it, on {report.judges} lines that training did not see"
    )
    if report.after.upper >= report.before.upper:
        typer.echo("the delta does not help: more text or more steps may", err=True)
