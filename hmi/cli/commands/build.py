"""hmi build"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hmi.cli.commands.files import read_lines, read_own_adapter, require_new, require_writable
from hmi.cli.commands.options import AsJson, BatchSize, Device, LearningRate, Seed, show
from hmi.spec import RowDtype

if TYPE_CHECKING:
    from hmi.models.convert import WeightDiff
    from hmi.training.delta import TrainedDelta
    from hmi.training.distill import BaseReport
    from hmi.training.reports import TrainProgress

_DEFAULT_K = 3

app = typer.Typer(no_args_is_help=True, help="Make base models, estimators and domain deltas. Needs no services.")

_MaxTokens = Annotated[int, typer.Option(min=2, help="Longer lines are truncated.")]
_Out = Annotated[Path, typer.Option(help="Folder to make.")]
_Source = Annotated[str, typer.Argument(help="Folder of a pretrained BERT (safetensors), or its name on a model hub.")]
_K = Annotated[int | None, typer.Option(min=0, help="Lower layers to look up instead of computing.  [default: 3]")]
_Text = Annotated[
    list[Path] | None,
    typer.Option(
        help="Text to distil on, one sentence per line; repeatable. Without it the package's weights are used."
    ),
]
_PeakRate = Annotated[float | None, typer.Option(help="Peak learning rate.  [default: 5e-4, 2e-4 for a decoder]")]
_Thinned = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Share of lines trained for backoff.  [default: 0.4, 0 for a decoder]"),
]
_EstimatorSteps = Annotated[int, typer.Option(min=0, help="Training steps of the estimator for backoff; 0: none.")]
_Difference = Annotated[Path | None, typer.Option(help="Make it without text from a file that --difference-out wrote.")]
_DifferenceOut = Annotated[Path | None, typer.Option(help="File for the trained difference, of a few megabytes.")]


@app.command(
    epilog="Examples: `hmi build base ./MiniLM-L6 --k 3 --out ./minilm-k3 --text news.txt --text reviews.txt`, "
    "`hmi build base ./MiniLM-L6 --k 0 --out ./minilm-k0`"
)
def base(
    source: _Source,
    out: _Out,
    k: _K = None,
    text: _Text = None,
    steps: Annotated[int, typer.Option(min=0, help="Steps of distillation; 0 only fits in closed form.")] = 6000,
    batch_size: BatchSize = 32,
    learning_rate: _PeakRate = None,
    thinned: _Thinned = None,
    max_tokens: _MaxTokens = 128,
    estimator_steps: _EstimatorSteps = 9000,
    seed: Seed = 0,
    device: Device = "cpu",
    rows: Annotated[RowDtype, typer.Option(help="Data type of stored rows.")] = RowDtype.INT8,
    difference: _Difference = None,
    difference_out: _DifferenceOut = None,
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
    from hmi.models.convert import find_shipped_diff, read_weight_diff, resolve_source
    from hmi.training.distill import BaseReport, apply_weight_diff

    folder = resolve_source(source)
    known = read_weight_diff(difference) if difference else None
    if known is not None and k not in (None, known.spec.k):
        raise InvalidInput(f"{difference} is of k = {known.spec.k}, not {k}")
    k = _DEFAULT_K if k is None else k
    if known is None and k and not corpora:
        known = find_shipped_diff(folder, k)
    if known is not None:
        with ProgressBar("converting"):
            report = BaseReport(apply_weight_diff(folder, known, out, rows))
    else:
        given = {"learning_rate": learning_rate, "thinned": thinned}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        changes |= {"batch_size": batch_size, "max_tokens": max_tokens, "seed": seed, "device": device}
        changes["steps"] = steps if corpora else 0
        report = _distil(folder, out, k, rows, corpora, changes, estimator_steps, difference_out)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report), indent=1))
    else:
        _print_base(report, known, out)


def _distil(
    source: Path,
    out: Path,
    k: int,
    rows: RowDtype,
    corpora: list[list[str]],
    changes: dict[str, Any],
    estimator_steps: int,
    difference: Path | None,
) -> BaseReport:
    """Convert and distil, with `changes` to the default configuration of the model's family."""
    from hmi.cli.render import ProgressBar
    from hmi.models.convert import family_of
    from hmi.training.distill import EstimatorConfig, build_base, default_distill_config

    family = family_of(source)
    config = dataclasses.replace(default_distill_config(family), **changes)
    estimator = EstimatorConfig(steps=estimator_steps, seed=config.seed) if estimator_steps and k else None
    if difference:
        difference.parent.mkdir(parents=True, exist_ok=True)
    # A decoder's loss includes the next token's, so it is not the square of an error.
    words = _loss if family.decodes else _error
    with ProgressBar("training", "steps") as bar:
        return build_base(
            source,
            out,
            k,
            rows,
            corpora,
            config,
            estimator=estimator,
            difference=difference,
            on_progress=lambda reached: bar.show_training(reached, words(reached)),
        )


def _print_base(report: BaseReport, known: WeightDiff | None, out: Path) -> None:
    from hmi.cli.render import fidelity_table

    spec = report.spec
    typer.echo(f"{out}: {spec.family} with {spec.layers} layers of {spec.hidden_size}, the lower {spec.k} looked up")
    if known is not None:
        typer.echo(f"distilled as {json.dumps(known.about.get('config', {}))}")
    elif report.before and report.fitted and report.after:
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
    max_tokens: _MaxTokens = 128,
    seed: Seed = 0,
    device: Device = "cpu",
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


_Teacher = Annotated[
    Path | None, typer.Option(help="Folder of the full model to distil from; distilled bases need it.")
]
_TeacherAdapter = Annotated[Path | None, typer.Option(help="Folder of an adapter at k = 0 for the teacher.")]
_Nearness = Annotated[float, typer.Option(min=0, help="Weight of the distance to the ancestor's rows; 0 for the root.")]


@app.command(
    epilog="Examples: `hmi build domain reviews.txt --base ./minilm-k3 --out ./reviews`, "
    "`hmi build domain movies.txt --base ./minilm-k3 --out ./movies --above ./reviews`"
)
def domain(
    text: Annotated[Path, typer.Argument(help="The domain's text, one sentence per line, without labels.")],
    base: Annotated[Path, typer.Option(help="Base model folder from `hmi build base`, with k > 0.")],
    out: _Out,
    above: Annotated[Path | None, typer.Option(help="Folder of the nearest ancestor's delta, to refine it.")] = None,
    teacher: _Teacher = None,
    teacher_adapter: _TeacherAdapter = None,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the LoRA pairs, in addition to the rank of --above.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimiser.")] = 300,
    batch_size: BatchSize = 32,
    learning_rate: LearningRate = 4e-3,
    nearness: _Nearness = 1.0,
    max_tokens: _MaxTokens = 128,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Train a domain delta: a LoRA that fits the lower layers to the text of one domain.

    It is distilled from a full model, so that the states after the lookup come closer to that model's.
    """
    from hmi.process import tune_process

    tune_process(os.environ)
    require_new(out)
    lines = read_lines(text)  # before torch is loaded, so that a mistake in the file shows at once

    from hmi.adapters.formats import FILE_NAME, save_adapter
    from hmi.cli.render import ProgressBar
    from hmi.training.delta import DeltaConfig, train_delta

    options: dict[str, Any] = {"rank": rank, "steps": steps, "batch_size": batch_size, "max_tokens": max_tokens}
    config = DeltaConfig(**options, learning_rate=learning_rate, nearness=nearness, seed=seed, device=device)
    with ProgressBar("training", "steps") as bar:
        trained = train_delta(
            base,
            lines,
            config,
            above=read_own_adapter(above) if above else None,
            teacher=teacher,
            teacher_adapter=read_own_adapter(teacher_adapter) if teacher_adapter else None,
            on_progress=lambda reached: bar.show_training(reached, _error(reached)),
        )
    out.mkdir(parents=True)
    save_adapter(trained.delta, out / FILE_NAME)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(trained.report), indent=1))
    else:
        _print_delta(trained, out)


def _print_delta(trained: TrainedDelta, out: Path) -> None:
    report, rank = trained.report, trained.delta.rank
    typer.echo(f"{out}: rank {rank} on the lower layers from {report.texts} lines in {report.seconds:.1f} s")
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
