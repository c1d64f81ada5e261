"""hmi model import"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hmi.cli.commands.files import LabelledReader, labelled_reader, require_new
from hmi.cli.commands.options import (
    AsJson,
    BatchSize,
    Device,
    Key,
    LabelField,
    LearningRate,
    Seed,
    TextField,
    Url,
    connect,
    show,
)

if TYPE_CHECKING:
    from rich.table import Table

    from hmi.adapters import Adapter
    from hmi.training.imports import ImportedAdapter, RetrainTarget
    from hmi.training.reports import RetrainReport

_NO_DELTA = "none"


_Labels = Annotated[list[str] | None, typer.Option(help="Name of a label; repeat it in the head's order.")]
_Data = Annotated[Path | None, typer.Option(help="Labelled text, as for `hmi train`, to retrain and evaluate on.")]
_Dev = Annotated[Path | None, typer.Option(help="Labelled text to evaluate on that the adapter has not seen.")]
_Compare = Annotated[list[Path] | None, typer.Option(help="Base of the same model with k > 0 to train on; repeatable.")]
_Deltas = Annotated[list[str] | None, typer.Option(help="Delta folder or `none` for each --compare, in order.")]
_DevShare = Annotated[float, typer.Option(min=0.01, max=0.3, help="Share of --data for choosing the epoch.")]
_BaseName = Annotated[str | None, typer.Option(help="Registered name of the base.  [default: found by content]")]


def add_to(app: typer.Typer) -> None:
    app.command(
        name="import",
        epilog="Examples: `hmi model import ./theirs --base ./minilm-k0 --out ./adapter --label no --label yes`, "
        "`hmi model import ./theirs --base ./minilm-k0 --out ./adapter --data reviews.jsonl --compare ./minilm-k3`",
    )(import_)


def import_(
    folder: Annotated[Path, typer.Argument(help="Adapter folder that PEFT or AdapterHub saved.")],
    base: Annotated[Path, typer.Option(help="Folder of the ordinary model: `hmi build base MODEL --k 0`.")],
    out: Annotated[Path, typer.Option(help="Adapter folder to make; retrained adapters are written beside it.")],
    label: _Labels = None,
    data: _Data = None,
    dev: _Dev = None,
    compare: _Compare = None,
    delta: _Deltas = None,
    dev_share: _DevShare = 0.1,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the text.")] = 4,
    batch_size: BatchSize = 32,
    learning_rate: LearningRate = 3e-3,
    max_tokens: Annotated[int, typer.Option(min=3, help="Longer texts are truncated, in evaluation too.")] = 128,
    seed: Seed = 0,
    device: Device = "cpu",
    text_field: TextField = "text",
    label_field: LabelField = "label",
    register: Annotated[str | None, typer.Option(help="`tenant/model` to register it as.")] = None,
    domain: Annotated[str, typer.Option(help="Domain of the registered model.")] = "general",
    base_name: _BaseName = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Import an adapter that was trained elsewhere on the ordinary model, to serve it exactly at k = 0.

    With --data, print a report on the same texts of the adapter as it is, retrained at k = 0, and retrained on each
    base to compare. Only --register needs services.
    """
    from hmi.errors import InvalidInput
    from hmi.process import tune_process

    tune_process(os.environ)
    require_new(out)
    if data is None and (dev or compare or delta):
        raise InvalidInput("--dev, --compare and --delta are for the report, which needs --data")

    from hmi.training.imports import import_adapter, save_imported

    imported = import_adapter(folder, base, label)
    if register and base_name is None:
        base_name = _registered_name(imported.base, base, url, key)
    report = None
    if data is not None and imported.adapter.head is not None:
        shape = {"epochs": epochs, "batch_size": batch_size, "max_tokens": max_tokens, "seed": seed}
        options = shape | {"learning_rate": learning_rate, "dev_share": dev_share, "device": device}
        targets = _targets(compare or [], delta or [])
        reader = labelled_reader(text_field, label_field)
        report = _retrain(imported.adapter, base, out, (data, dev), reader, targets, options)
    plain = save_imported(imported, out, report)
    if as_json:
        typer.echo(json.dumps(plain, indent=1, ensure_ascii=False))
    else:
        typer.echo(_imported_lines(imported, out))
        if report is not None:
            _show_report(report, out)
    if register:
        with connect(url, key) as client:
            made = client.register_model(register, base=base_name or "", domain=domain, adapter=out)
        typer.echo(f"{made.name} is served (revision {made.revision})", err=as_json)
    if data is not None and report is None:
        raise InvalidInput(
            f"{out} was made, but there is no report: the adapter has no head, so there are no labels to evaluate"
        )


def _retrain(
    adapter: Adapter,
    base: Path,
    out: Path,
    texts: tuple[Path, Path | None],
    reader: LabelledReader,
    targets: Sequence[RetrainTarget],
    options: dict[str, Any],
) -> RetrainReport:
    """Train and evaluate on the files `texts`, and write each trained adapter to a folder beside `out`."""
    from hmi.cli.render import ProgressBar, training_words
    from hmi.errors import Conflict
    from hmi.training.adapter import task_of
    from hmi.training.imports import name_targets, retrain
    from hmi.training.plan import TrainConfig
    from hmi.training.reports import save_trained

    assert adapter.head is not None  # noqa: S101 - the caller checked
    (data, dev), task = texts, task_of(adapter.head)
    examples = reader(data, task, False).examples
    judging = reader(dev, task, True).examples if dev else ()
    folders = {name: out.with_name(f"{out.name}-{name}") for name in name_targets(base, targets)}
    if there := next((each for each in folders.values() if each.exists()), None):
        raise Conflict(f"{there} exists already; remove it or choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)

    def checkpoint(name: str) -> Path:
        return out.with_name(f".{out.name}-{name}.training")

    with ProgressBar("training", "steps") as bar:
        found = retrain(
            base,
            adapter,
            examples,
            TrainConfig(**options),
            judging,
            faster=targets,
            on_progress=lambda name, reached: bar.show_training(reached, f"{name}: {training_words(reached)}"),
            checkpoint=checkpoint,
        )
    for name, trained in found.adapters.items():
        save_trained(trained, folders[name], data.name)
        checkpoint(name).unlink(missing_ok=True)
    return found.report


def _targets(bases: list[Path], deltas: list[str]) -> list[RetrainTarget]:
    from hmi.adapters.formats import read_delta
    from hmi.errors import InvalidInput
    from hmi.spec import read_spec
    from hmi.training.imports import RetrainTarget

    if deltas and len(deltas) != len(bases):
        raise InvalidInput(f"{len(bases)} --compare and {len(deltas)} --delta: give one for each, or `{_NO_DELTA}`")
    pairs = zip(bases, deltas or [_NO_DELTA] * len(bases), strict=True)
    return [
        RetrainTarget(base, None if delta == _NO_DELTA else read_delta(Path(delta), read_spec(base)))
        for base, delta in pairs
    ]


def _registered_name(digest: str, base: Path, url: str | None, key: str | None) -> str:
    from hmi.errors import NotFound

    with connect(url, key) as client:
        name = next((each.name for each in client.bases() if each.artifact == digest), None)
    if name is None:
        raise NotFound(f"no registered base model has the content of {base}: `hmi base register NAME {base}`")
    return name


def _imported_lines(imported: ImportedAdapter, out: Path) -> str:
    from hmi.cli.render import bytes_words

    found, origin = imported.adapter.summary(), imported.origin
    version = f" {origin.version}" if origin.version else ""
    named = f", trained on {origin.model!r} by its own account" if origin.model else ""
    lines = [
        f"{out}: {found['kind']} from {origin.library}{version}{named}",
        f"ranks {_listed(found['ranks'])}, layers {_listed(found['layers'])}, sites {_listed(found['sites'])}",
        f"labels {_listed(found['labels'] or ())}, {bytes_words(found['bytes'])}",
    ]
    return "\n".join(lines)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"


def _show_report(report: RetrainReport, out: Path) -> None:
    """Print the scores of the adapter and of those that were trained beside it."""
    typer.echo(
        f"\ntrained on {report.train_examples:,} examples, the epoch chosen on {report.dev_examples:,}, "
        f"evaluated on {report.test_examples:,} others; scores in points:"
    )
    show(_report_table(report))
    for each in report.comparisons:
        if each.left_out:
            typer.echo(f"{each.name}: layers {_listed(each.left_out)} are looked up and have no adapter")
    for note in report.notes:
        typer.echo(note)
    names = ", ".join(f"{out.name}-{each.name}" for each in report.comparisons[1:])
    typer.echo(f"for `hmi model register`: {names}")


def _report_table(report: RetrainReport) -> Table:
    from hmi.cli.render import bytes_words, table

    columns = ("adapter", report.metric.replace("_", " "), "macro F1", "to imported", "to k = 0", "layers run")
    return table(
        (*columns, "bytes", "seconds"),
        [
            (
                f"{each.name} on {each.base}{' with delta' if each.delta else ''}",
                f"{100 * each.metrics[report.metric]:.1f}",
                f"{100 * each.metrics['macro_f1']:.1f}",
                str(each.to_imported.score) if each.to_imported else "-",
                str(each.to_retrained.score) if each.to_retrained else "-",
                f"{each.layers - each.k} of {each.layers}",
                bytes_words(each.bytes),
                "-" if each.seconds is None else f"{each.seconds:.1f}",
            )
            for each in report.comparisons
        ],
    )
