"""hmi build"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.commands.options import AsJson, Seed
from hmi.spec import RowDtype

if TYPE_CHECKING:
    from hmi.training.reports import TrainProgress

__all__ = ["app"]

_K = 3

app = typer.Typer(no_args_is_help=True, help="Make the parts of a hierarchical model from text. Needs no services.")


@app.command(
    epilog="Examples: `hmi build base ./MiniLM-L6 --k 3 --out ./minilm-k3 --text news.txt --text reviews.txt`, "
    "`hmi build base ./MiniLM-L6 --k 0 --out ./minilm-k0`"
)
def base(
    source: Annotated[
        str, typer.Argument(help="Folder of a pretrained BERT (safetensors), or its name on a model hub.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    k: Annotated[
        int | None,
        typer.Option(min=0, help="Lower layers to look up instead of computing; 0 hosts it unchanged.  [default: 3]"),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            help="Text to distil it on, one sentence or so a line; may be given several times, and each file is drawn "
            "from alike. Without text, what this package knows of the model is used."
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=0, help="Of distillation; 0 fits only what can be fitted in closed form.")
    ] = 6000,
    batch_size: Annotated[int, typer.Option(min=1, help="Lines in one step.")] = 32,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="The highest; it rises to it and falls to zero.  [default: 5e-4, 2e-4 for a decoder]"),
    ] = None,
    thinned: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of lines whose windows lose neighbours, for backoff.  [default: 0.4, 0 for a decoder]",
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longer lines are cut.")] = 128,
    estimator_steps: Annotated[
        int, typer.Option(min=0, help="Of teaching what stands in for rows under the policy backoff; 0: nothing is.")
    ] = 9000,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda:0.")] = "cpu",
    rows: Annotated[RowDtype, typer.Option(help="How looked-up rows are stored.")] = RowDtype.INT8,
    difference: Annotated[
        Path | None, typer.Option(help="Make it from this file, which --difference-out wrote, without any text.")
    ] = None,
    difference_out: Annotated[
        Path | None, typer.Option(help="Write what was learnt to this file of a few megabytes, and use it rounded so.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a base model from a pretrained one: windows for its lower layers, and what that takes away learnt anew.

    What was done when it is stopped is kept beside --out, and the same command goes on with it.
    """
    from hmi.cli.commands.outputs import require_new, require_writable
    from hmi.cli.commands.text_files import read_lines
    from hmi.errors import InvalidInput
    from hmi.process import tune_process

    if difference and text:
        raise InvalidInput("give --text or --difference, not both")
    if difference_out and not text:
        raise InvalidInput("--difference-out needs --text to learn from")
    require_new(out)
    if difference_out:
        require_writable(difference_out)
    tune_process(os.environ)
    # Read before torch is loaded, which takes seconds: a mistake in a file shows at once.
    corpora = [read_lines(path) for path in text or ()]

    from hmi.cli.render import TrainingBar
    from hmi.models.convert import family_of, find_shipped_diff, read_weight_diff, resolve_source
    from hmi.training.distill import BaseReport, EstimatorConfig, apply_weight_diff, build_base, default_distill_config

    folder = resolve_source(source)
    known = read_weight_diff(difference) if difference else None
    if known is not None and k not in (None, known.spec.k):
        raise InvalidInput(f"{difference} is of k = {known.spec.k}, not {k}")
    k = _K if k is None else k
    if known is None and k and not corpora:
        known = find_shipped_diff(folder, k)
    if known is not None:
        report = BaseReport(apply_weight_diff(folder, known, out, rows))
    else:
        family = family_of(folder)
        recipe = default_distill_config(family)
        config = dataclasses.replace(
            recipe,
            steps=steps if corpora else 0,
            batch_size=batch_size,
            learning_rate=recipe.learning_rate if learning_rate is None else learning_rate,
            thinned=recipe.thinned if thinned is None else thinned,
            max_tokens=max_tokens,
            seed=seed,
            device=device,
        )
        if difference_out:
            difference_out.parent.mkdir(parents=True, exist_ok=True)
        # A decoder's loss is no error's square alone: what comes next is part of it.
        says = _loss if family.decodes else _error
        with TrainingBar() as bar:
            report = build_base(
                folder,
                out,
                k,
                rows,
                corpora,
                config,
                estimator=EstimatorConfig(steps=estimator_steps, seed=seed) if estimator_steps and k else None,
                difference=difference_out,
                on_progress=lambda reached: bar.show(reached, says(reached)),
            )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report), indent=1))
        return
    spec = report.spec
    typer.echo(f"{out}: {spec.family} with {spec.layers} layers of {spec.hidden_size}, the lower {spec.k} looked up")
    if known is not None:
        typer.echo(f"distilled as {json.dumps(known.about.get('config', {}))}")
    elif report.before and report.fitted and report.after:
        from hmi.cli.render import fidelity_table

        typer.echo(fidelity_table(spec.k, report.before, report.fitted, report.after))
        typer.echo(f"on {report.judges} lines that training did not see, in {report.seconds:.0f} s")
        if report.estimate_error is not None:
            typer.echo(_estimates(report.estimate_error))
    elif spec.k:
        typer.echo("without --text it is as it was converted: far from the pretrained model", err=True)


@app.command(epilog="Example: `hmi build estimator ./minilm-k3 --text news.txt --text reviews.txt --out ./minilm-k3e`")
def estimator(
    base: Annotated[Path, typer.Argument(help="Base model folder from `hmi build base`, with k > 0.")],
    out: Annotated[Path, typer.Option(help="Folder to make, with the same model and the estimator in it.")],
    text: Annotated[list[Path], typer.Option(help="Text to learn from, one sentence or so a line; or several.")],
    steps: Annotated[int, typer.Option(min=1, help="Of the optimiser.")] = 9000,
    size: Annotated[int, typer.Option(min=1, help="Hidden values: more are slower, and nearer to the rows.")] = 768,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longer lines are cut.")] = 128,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda:0.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Teach a base model that exists what stands in, under the policy backoff, for rows that no tree holds.

    `hmi build base` does it too. The result is another base model: domain deltas and trees of the first are not its.
    """
    from hmi.cli.commands.outputs import require_new
    from hmi.cli.commands.text_files import read_lines
    from hmi.process import tune_process

    tune_process(os.environ)
    require_new(out)
    corpora = [read_lines(path) for path in text]  # before torch is loaded: a mistake in a file shows at once

    from hmi.cli.render import TrainingBar
    from hmi.training.distill import EstimatorConfig, add_estimator

    config = EstimatorConfig(steps=steps, size=size, seed=seed)
    with TrainingBar() as bar:
        error = add_estimator(
            base,
            out,
            corpora,
            config,
            max_tokens=max_tokens,
            device=device,
            on_progress=lambda reached: bar.show(reached, _error(reached)),
        )
    typer.echo(json.dumps({"estimate_error": error}, indent=1) if as_json else f"{out}: {_estimates(error)}")


@app.command(
    epilog="Examples: `hmi build domain reviews.txt --base ./minilm-k3 --out ./reviews`, "
    "`hmi build domain movies.txt --base ./minilm-k3 --out ./movies --above ./reviews`"
)
def domain(
    text: Annotated[Path, typer.Argument(help="The domain's text, one sentence or so a line; no labels.")],
    base: Annotated[Path, typer.Option(help="Base model folder from `hmi build base`, with k > 0.")],
    out: Annotated[Path, typer.Option(help="Folder to make, with the delta in it.")],
    above: Annotated[
        Path | None, typer.Option(help="Folder of the delta of the nearest domain above that has one, to refine it.")
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the full model to agree with: the pretrained one, or the domain's own, fine-tuned from it. "
            "A distilled base needs it."
        ),
    ] = None,
    teacher_adapter: Annotated[
        Path | None,
        typer.Option(
            help="Adapter folder, trained at k = 0 on the domain's labelled text: with --teacher its own model."
        ),
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
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda:0.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Train a domain delta: lower layers that fit one domain's text better, for the rows of its own windows.

    It is distilled from a full model, so that states after the lookup come nearer to that model's.
    """
    from hmi.cli.commands.outputs import read_own_adapter, require_new
    from hmi.cli.commands.text_files import read_lines
    from hmi.process import tune_process

    tune_process(os.environ)
    require_new(out)
    # Read before torch is loaded, which takes seconds: a mistake in the file shows at once.
    lines = read_lines(text)

    from hmi.adapters.formats import FILE_NAME, save_adapter
    from hmi.cli.render import TrainingBar
    from hmi.training.delta import DeltaConfig, train_delta

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
    refined = read_own_adapter(above) if above else None
    taught = read_own_adapter(teacher_adapter) if teacher_adapter else None
    with TrainingBar() as bar:
        trained = train_delta(
            base,
            lines,
            config,
            above=refined,
            teacher=teacher,
            teacher_adapter=taught,
            on_progress=lambda reached: bar.show(reached, _error(reached)),
        )
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
        f"error of the last layer's states against the full model: {report.before.upper:.3f} without it, "
        f"{report.after.upper:.3f} with it, on {report.judges} lines that training did not see"
    )
    if report.estimate_error is not None:
        typer.echo(_estimates(report.estimate_error))
    if report.after.upper >= report.before.upper:
        typer.echo("the delta does not help: more text or more steps may", err=True)


def _estimates(error: float) -> str:
    return f"rows that no tree holds are estimated, {error:.1%} of their length off on text that training did not see"


def _loss(reached: TrainProgress) -> str:
    return f"loss {reached.loss:.3f}"


def _error(reached: TrainProgress) -> str:
    return f"error {reached.loss**0.5:.3f}"
