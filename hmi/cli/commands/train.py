"""hmi train"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hmi.cli.commands.files import labelled_reader, read_own_adapter, require_new
from hmi.cli.commands.options import AsJson, BatchSize, Device, LabelField, Seed, TextField
from hmi.spec import MissPolicy, TaskKind

if TYPE_CHECKING:
    from hmi.adapters import Adapter
    from hmi.training.data import AnyExample
    from hmi.training.plan import TrainConfig
    from hmi.training.reports import TrainReport


class _Kind(StrEnum):
    """The values of `hmi.adapters.AdapterKind`, which would load numpy before the help is printed."""

    LORA = "lora"
    BOTTLENECK = "bottleneck"
    NONE = "none"


_DevShare = Annotated[float, typer.Option(min=0, max=0.5, help="Share of the text to evaluate on; 0: none.")]
_Policy = Annotated[MissPolicy, typer.Option(help="Policy of the served model; backoff trains on estimated rows.")]
_Start = Annotated[Path | None, typer.Option(help="Adapter folder to start from, such as one trained at k = 0.")]
_KindOption = Annotated[_Kind | None, typer.Option(help="Besides the head.  [default: bottleneck, on decoders lora]")]
_Rank = Annotated[int | None, typer.Option(min=1, help="Rank of LoRA, width of bottlenecks.  [default: 16, 48]")]
_Epochs = Annotated[int | None, typer.Option(min=1, help="Most passes over the text.  [default: 4, with --start 2]")]
_PeakRate = Annotated[float | None, typer.Option(help="Peak learning rate.  [default: 0.003, with --start 0.001]")]


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
    dev_share: _DevShare = 0.1,
    delta: Annotated[Path | None, typer.Option(help="Folder of the delta of the model's domain.")] = None,
    policy: _Policy = MissPolicy.EXACT,
    start: _Start = None,
    kind: _KindOption = None,
    rank: _Rank = None,
    epochs: _Epochs = None,
    patience: Annotated[int, typer.Option(min=1, help="Epochs without improvement before training stops.")] = 2,
    batch_size: BatchSize = 32,
    learning_rate: _PeakRate = None,
    max_tokens: Annotated[int, typer.Option(min=3, help="Longer texts are truncated.")] = 128,
    seed: Seed = 0,
    device: Device = "cpu",
    text_field: TextField = "text",
    label_field: LabelField = "label",
    as_json: AsJson = False,
) -> None:
    """Train an adapter on labelled text; only the layers above the lookup are trained.

    A line is {"text", "label"}, {"text", "labels": [...]}, {"tokens": [...], "tags": [...]}, {"text", "spans":
    [{"start", "end", "label"}]}, {"text", "positive", "negative"} or OpenAI's {"messages"}; for a decoder {"prompt",
    "completion"}, {"text"} or {"messages"}. The folder gets the adapter, a report and a model card. After an interrupt,
    the same command resumes the training.
    """
    from hmi.errors import InvalidInput
    from hmi.models.text import load_chat
    from hmi.process import tune_process
    from hmi.spec import read_spec

    tune_process(os.environ)
    if start and (kind or rank):
        raise InvalidInput("kind and rank are those of --start; leave --kind and --rank out")
    require_new(out)
    # Read before torch is loaded, which takes seconds, so that a mistake in a file shows at once.
    decodes = read_spec(base).family.decodes
    read = labelled_reader(text_field, label_field, load_chat(base))
    labelled = read(data, task or (TaskKind.LANGUAGE if decodes else None), False)
    judging = read(dev, labelled.kind, True) if dev else None

    from hmi.adapters.formats import read_adapter
    from hmi.spec import read_spec

    adapter = read_adapter(start, read_spec(base).ordinary) if start else None
    shape = {"batch_size": batch_size, "max_tokens": max_tokens, "patience": patience, "seed": seed}
    changes = shape | {"miss_policy": policy, "dev_share": dev_share, "device": device}
    chosen = kind or (_Kind.LORA if decodes else _Kind.BOTTLENECK)
    config = _config(chosen, rank, epochs, learning_rate, changes, adapter)
    report = _train(
        base,
        labelled.examples,
        config,
        judging.examples if judging else (),
        delta=read_own_adapter(delta) if delta else None,
        start=adapter,
        out=out,
        source=data.name,
    )
    typer.echo(json.dumps(report.to_json(), indent=1) if as_json else _summary(report, out))


def _config(
    kind: _Kind,
    rank: int | None,
    epochs: int | None,
    learning_rate: float | None,
    changes: dict[str, Any],
    start: Adapter | None,
) -> TrainConfig:
    """The configuration of an adapter, or of one that starts from `start`, with the options that were given."""
    from hmi.adapters import AdapterKind
    from hmi.training.plan import TrainConfig, config_from_start, default_rank

    chosen = AdapterKind(kind.value)
    config = TrainConfig(kind=chosen, rank=rank or default_rank(chosen), **changes)
    if start is not None:
        config = config_from_start(start, config)
    return dataclasses.replace(
        config,
        epochs=config.epochs if epochs is None else epochs,
        learning_rate=config.learning_rate if learning_rate is None else learning_rate,
    )


def _train(
    base: Path,
    examples: Sequence[AnyExample],
    config: TrainConfig,
    judging: Sequence[AnyExample],
    *,
    delta: Adapter | None,
    start: Adapter | None,
    out: Path,
    source: str,
) -> TrainReport:
    """Train with progress and checkpoints, and write the adapter to `out`."""
    from hmi.cli.render import ProgressBar, training_words
    from hmi.training.adapter import train_adapter
    from hmi.training.reports import save_trained

    out.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = out.with_name(f".{out.name}.training")
    with ProgressBar("training", "steps") as bar:
        trained = train_adapter(
            base,
            examples,
            config,
            judging,
            delta=delta,
            start=start,
            on_progress=lambda reached: bar.show_training(reached, training_words(reached)),
            checkpoint=checkpoint,
        )
    save_trained(trained, out, source)
    checkpoint.unlink(missing_ok=True)
    return trained.report


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
