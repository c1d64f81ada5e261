"""hmi build"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.commands.files import read_lines, read_own_adapter, require_new, require_writable
from hmi.cli.commands.options import AsJson, Seed, show
from hmi.spec import RowDtype

if TYPE_CHECKING:
    from hmi.training.reports import TrainProgress

__all__ = ["app"]

_K = 3

app = typer.Typer(no_args_is_help=True, help="Make base models, estimators and domain deltas. Needs no services.")


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
        typer.Option(min=0, help="Lower layers to look up, not compute; 0 keeps the model as it is.  [default: 3]"),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            help="Text to distil on, one sentence per line. Repeatable; each file has the same share. Without text the "
            "package's own weights for the model are used."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=0, help="Steps of distillation; 0 only fits in closed form.")] = 6000,
    batch_size: Annotated[int, typer.Option(min=1, help="Lines in one step.")] = 32,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak of the learning rate, which then falls to zero.  [default: 5e-4, 2e-4 for a decoder]"),
    ] = None,
    thinned: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of lines whose windows lose neighbours, to train for backoff.  [default: 0.4, 0 for a decoder]",
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longer lines are truncated.")] = 128,
    estimator_steps: Annotated[
        int, typer.Option(min=0, help="Steps of training the estimator of missing rows (backoff); 0 trains none.")
    ] = 9000,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda:0.")] = "cpu",
    rows: Annotated[RowDtype, typer.Option(help="Data type of stored rows.")] = RowDtype.INT8,
    difference: Annotated[
        Path | None, typer.Option(help="Make it without text from a file that --difference-out wrote.")
    ] = None,
    difference_out: Annotated[
        Path | None, typer.Option(help="Write the trained difference, rounded, to this file of a few megabytes.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a base model from a pretrained one: its lower layers read windows, and distillation restores the accuracy.

    After an interrupt, the same command resumes; its state is kept beside --out.
    """
    from hmi.errors import InvalidInput
    from hmi.process import tune_process

    if difference and text:
        raise InvalidInput("give --text or --difference, not both")
    if difference_out and not text:
        raise InvalidInput("--difference-out needs --text to train on")
    require_new(out)
    if difference_out:
        require_writable(difference_out)
    tune_process(os.environ)
    # Read before torch is loaded, which takes seconds, so that a mistake in a file shows at once.
    corpora = [read_lines(path) for path in text or ()]

    from hmi.cli.render import ProgressBar
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
        # A decoder's loss includes the next token's, so it is not the square of an error.
        words = _loss if family.decodes else _error
        with ProgressBar("training", "steps") as bar:
            report = build_base(
                folder,
                out,
                k,
                rows,
                corpora,
                config,
                estimator=EstimatorConfig(steps=estimator_steps, seed=seed) if estimator_steps and k else None,
                difference=difference_out,
                on_progress=lambda reached: bar.show_training(reached, words(reached)),
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

        show(fidelity_table(spec.k, report.before, report.fitted, report.after))
        typer.echo(f"on {report.dev_texts} held-out lines, in {report.seconds:.0f} s")
        if report.estimate_error is not None:
            typer.echo(_estimates(report.estimate_error))
    elif spec.k:
        typer.echo("without --text the model is only converted: it is far from the pretrained model", err=True)


@app.command(epilog="Example: `hmi build estimator ./minilm-k3 --text news.txt --text reviews.txt --out ./minilm-k3e`")
def estimator(
    base: Annotated[Path, typer.Argument(help="Base model folder from `hmi build base`, with k > 0.")],
    out: Annotated[Path, typer.Option(help="Folder to make, with the model and the estimator.")],
    text: Annotated[list[Path], typer.Option(help="Text to train on, one sentence per line; repeatable.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimiser.")] = 9000,
    size: Annotated[int, typer.Option(min=1, help="Hidden size: a larger one is slower and more accurate.")] = 768,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longer lines are truncated.")] = 128,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda:0.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Train an estimator of missing rows, for the policy backoff, for an existing base model.

    `hmi build base` trains one too. The result is a new base model: deltas and trees of the old one do not fit it.
    """
    from hmi.process import tune_process

    tune_process(os.environ)
    require_new(out)
    corpora = [read_lines(path) for path in text]  # before torch is loaded, so that a mistake in a file shows at once

    from hmi.cli.render import ProgressBar
    from hmi.training.distill import EstimatorConfig, add_estimator

    config = EstimatorConfig(steps=steps, size=size, seed=seed)
    with ProgressBar("training", "steps") as bar:
        error = add_estimator(
            base,
            out,
            corpora,
            config,
            max_tokens=max_tokens,
            device=device,
            on_progress=lambda reached: bar.show_training(reached, _error(reached)),
        )
    typer.echo(json.dumps({"estimate_error": error}, indent=1) if as_json else f"{out}: {_estimates(error)}")


@app.command(
    epilog="Examples: `hmi build domain reviews.txt --base ./minilm-k3 --out ./reviews`, "
    "`hmi build domain movies.txt --base ./minilm-k3 --out ./movies --above ./reviews`"
)
def domain(
    text: Annotated[Path, typer.Argument(help="The domain's text, one sentence per line, without labels.")],
    base: Annotated[Path, typer.Option(help="Base model folder from `hmi build base`, with k > 0.")],
    out: Annotated[Path, typer.Option(help="Folder to make, with the delta.")],
    above: Annotated[Path | None, typer.Option(help="Folder of the nearest ancestor's delta, to refine it.")] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the teacher: the pretrained model, or the domain's fine-tuned one. Distilled bases need it."
        ),
    ] = None,
    teacher_adapter: Annotated[
        Path | None,
        typer.Option(help="Adapter folder, trained at k = 0 on the domain's labelled text, that --teacher runs with."),
    ] = None,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the LoRA pairs, in addition to the rank of --above.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimiser.")] = 300,
    batch_size: Annotated[int, typer.Option(min=1, help="Lines in one step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Peak of the learning rate, which then falls to zero.")] = 4e-3,
    nearness: Annotated[
        float,
        typer.Option(min=0, help="Weight of the distance to the ancestor's rows; 0 for the root."),
    ] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longer lines are truncated.")] = 128,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda:0.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Train a domain delta: a LoRA that fits the lower layers to the text of one domain.

    It is distilled from a full model, so that the states after the lookup come closer to that model's.
    """
    from hmi.process import tune_process

    tune_process(os.environ)
    require_new(out)
    # Read before torch is loaded, which takes seconds, so that a mistake in the file shows at once.
    lines = read_lines(text)

    from hmi.adapters.formats import FILE_NAME, save_adapter
    from hmi.cli.render import ProgressBar
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
    with ProgressBar("training", "steps") as bar:
        trained = train_delta(
            base,
            lines,
            config,
            above=refined,
            teacher=teacher,
            teacher_adapter=taught,
            on_progress=lambda reached: bar.show_training(reached, _error(reached)),
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
        f"error of the last layer's states against the full model: {report.before.upper:.3f} without the delta, "
        f"{report.after.upper:.3f} with it, on {report.dev_texts} held-out lines"
    )
    if report.estimate_error is not None:
        typer.echo(_estimates(report.estimate_error))
    if report.after.upper >= report.before.upper:
        typer.echo("the delta does not help: more text or more steps may", err=True)


def _estimates(error: float) -> str:
    return f"the estimator of missing rows has a relative error of {error:.1%} on held-out text"


def _loss(reached: TrainProgress) -> str:
    return f"loss {reached.loss:.3f}"


def _error(reached: TrainProgress) -> str:
    return f"error {reached.loss**0.5:.3f}"
