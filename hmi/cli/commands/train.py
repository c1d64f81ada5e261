"""hmi train"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.commands.files import labelled_reader, read_own_adapter, require_new
from hmi.cli.commands.options import AsJson, Seed
from hmi.spec import MissPolicy, TaskKind

if TYPE_CHECKING:
    from hmi.training.data import AnyExample
    from hmi.training.reports import TrainReport

__all__ = ["add_to"]


class _Kind(StrEnum):
    """The values of `hmi.adapters.AdapterKind`, which would load numpy before the help is printed."""

    LORA = "lora"
    BOTTLENECK = "bottleneck"
    NONE = "none"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Examples: `hmi train reviews.jsonl --base ./minilm-k3 --out ./adapter`, "
        "`hmi train people.jsonl --base ./minilm-k3 --out ./people --task tokens --dev held-out.jsonl`"
    )(train)


def train(
    data: Annotated[Path, typer.Argument(help="Labelled text: JSON lines, or CSV with a heading.")],
    base: Annotated[Path, typer.Option(help="Base model folder from `hmi build base`.")],
    out: Annotated[Path, typer.Option(help="Adapter folder to make, for `hmi model register --adapter`.")],
    task: Annotated[TaskKind | None, typer.Option(help="Task of the head.  [default: what the fields are for]")] = None,
    dev: Annotated[Path | None, typer.Option(help="Labelled text to evaluate each epoch on.")] = None,
    dev_share: Annotated[
        float,
        typer.Option(min=0, max=0.5, help="Share of the text to evaluate on without --dev; 0: none."),
    ] = 0.1,
    delta: Annotated[Path | None, typer.Option(help="Folder of the delta of the model's domain.")] = None,
    policy: Annotated[
        MissPolicy,
        typer.Option(help="Policy that it is served under; for backoff, training uses estimated rows."),
    ] = MissPolicy.EXACT,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Adapter folder to start from, for example one trained at k = 0: its upper layers, kind and size are "
            "kept."
        ),
    ] = None,
    kind: Annotated[
        _Kind | None,
        typer.Option(help="What is trained besides the head.  [default: bottleneck, on decoders lora, or as --start]"),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rank of the LoRA pairs, or width of the bottlenecks.  [default: 48, of a LoRA 16, or as --start]",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Most passes over the text.  [default: 4, with --start 2]")
    ] = None,
    patience: Annotated[int, typer.Option(min=1, help="Epochs without improvement before training stops.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in one step.")] = 32,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak of the learning rate, which then falls to zero.  [default: 0.003, with --start 0.001]"),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=3, help="Longer texts are truncated.")] = 128,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda:0.")] = "cpu",
    text_field: Annotated[str, typer.Option(help="Field or column of the text.")] = "text",
    label_field: Annotated[str, typer.Option(help="Field or column of the label.")] = "label",
    as_json: AsJson = False,
) -> None:
    """Train an adapter on labelled text; only the layers above the lookup are trained.

    A line is {"text", "label"}, {"text", "labels": [...]}, {"tokens": [...], "tags": [...]}, {"text", "spans":
    [{"start", "end", "label"}]}, {"text", "positive", "negative"} or OpenAI's {"messages"}; for a decoder {"prompt",
    "completion"}, {"text"} or {"messages"}. The folder gets the adapter, a report and a model card. After an interrupt,
    the same command resumes the training.
    """
    import dataclasses
    import json
    import os

    from hmi.errors import InvalidInput
    from hmi.models.text import load_chat
    from hmi.process import tune_process
    from hmi.spec import read_spec

    tune_process(os.environ)
    if start and (kind or rank):
        raise InvalidInput("kind and rank are those of --start; leave --kind and --rank out")
    require_new(out)
    # Read before torch is loaded, which takes seconds, so that a mistake in the file shows at once.
    decodes = read_spec(base).family.decodes
    if decodes:
        task = task or TaskKind.LANGUAGE
    read = labelled_reader(text_field, label_field, load_chat(base))
    labelled = read(data, task, False)
    warnings = [f"{data}: {warning}" for warning in labelled.warnings]
    judging: tuple[AnyExample, ...] = ()
    if dev:
        judges = read(dev, labelled.kind, True)
        judging = judges.examples
        warnings += [f"{dev}: {warning}" for warning in judges.warnings]
    for warning in warnings:
        typer.echo(warning, err=True)

    from hmi.adapters import AdapterKind
    from hmi.adapters.formats import read_adapter
    from hmi.cli.render import ProgressBar, training_words
    from hmi.models.families import load_spec
    from hmi.training.adapter import train_adapter
    from hmi.training.plan import TrainConfig, config_from_start, default_rank
    from hmi.training.reports import save_trained

    chosen = AdapterKind(kind.value if kind else _Kind.LORA if decodes else _Kind.BOTTLENECK)
    config = TrainConfig(
        kind=chosen,
        rank=rank or default_rank(chosen),
        batch_size=batch_size,
        max_tokens=max_tokens,
        miss_policy=policy,
        patience=patience,
        dev_share=dev_share,
        seed=seed,
        device=device,
    )
    adapter = read_adapter(start, load_spec(base).ordinary) if start else None
    if adapter:
        config = config_from_start(adapter, config)
    config = dataclasses.replace(
        config,
        epochs=config.epochs if epochs is None else epochs,
        learning_rate=config.learning_rate if learning_rate is None else learning_rate,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = out.with_name(f".{out.name}.training")
    with ProgressBar("training", "steps") as bar:
        trained = train_adapter(
            base,
            labelled.examples,
            config,
            judging,
            delta=read_own_adapter(delta) if delta else None,
            start=adapter,
            on_progress=lambda reached: bar.show_training(reached, training_words(reached)),
            checkpoint=checkpoint,
        )
    save_trained(trained, out, data.name)
    checkpoint.unlink(missing_ok=True)
    typer.echo(json.dumps(trained.report.to_json(), indent=1) if as_json else _summary(trained.report, out))


def _summary(report: TrainReport, out: Path) -> str:
    lines = [
        f"{out}: {report.task} from {report.examples:,} examples in {report.seconds:.1f} s "
        f"({report.seconds_per_thousand_examples:.1f} s for a thousand), {report.epochs} epochs"
    ]
    if report.left_out:
        lines.append(f"{report.left_out:,} examples were left out: the evaluation has their texts")
    if report.dev is None:
        lines.append("no evaluation: all examples were trained on")
    else:
        figures = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in report.dev.values.items())
        lines.append(
            f"on {report.dev_examples:,} others, after epoch {report.best_epoch}: {figures} "
            f"({report.dev.name.replace('_', ' ')} {report.baseline:.3f} without training)"
        )
    return "\n".join(lines)
