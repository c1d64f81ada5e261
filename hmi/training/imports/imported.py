"""An adapter from elsewhere as HMI keeps it: the canonical file, what was read, and a model card."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmi.adapters import Adapter
from hmi.adapters.formats import Origin, read_adapter, read_origin
from hmi.artifacts import folder_digest
from hmi.errors import InvalidInput
from hmi.spec import read_spec
from hmi.training.adapter import task_of
from hmi.training.reports import (
    IMPORTED,
    TASK_WORDS,
    AdapterComparison,
    RetrainReport,
    escape_markdown,
    markdown_table,
    save_adapter_folder,
)

__all__ = ["ImportedAdapter", "import_adapter", "imported_card", "save_imported"]


@dataclass(frozen=True, slots=True)
class ImportedAdapter:
    """Attributes:
    source: Name of the folder that it was read from.
    base: Digest of the base artifact that it stands on, with k = 0.
    """

    adapter: Adapter
    source: str
    origin: Origin
    base: str

    def to_json(self) -> dict[str, Any]:
        """What it is, ready for JSON; no weights."""
        return {
            "source": self.source,
            "origin": dataclasses.asdict(self.origin),
            "base": self.base,
            "k": 0,
            "adapter": self.adapter.summary(),
        }


def import_adapter(folder: Path, base: Path, labels: Sequence[str] | None = None) -> ImportedAdapter:
    """Read a folder of PEFT, AdapterHub or HMI whole, for the base artifact in `base`.

    Args:
        labels: Names of the head's outputs, in order, as in `read_adapter`.

    Raises:
        AdapterRefused: Anything in the folder that is not understood, named with the reason.
        InvalidInput: A base that looks layers up: an adapter that was trained on the ordinary model is not exact there.
        Corrupt: A damaged base.
    """
    spec = read_spec(base)
    if spec.k:
        raise InvalidInput(
            f"{base} looks {spec.k} lower layers up, and an adapter from elsewhere is exact on the ordinary model "
            "alone: `hmi build base MODEL --k 0` makes a base of it",
            param="base",
        )
    adapter = read_adapter(folder, spec, labels)
    return ImportedAdapter(adapter, folder.resolve().name, read_origin(folder), folder_digest(base))


def save_imported(imported: ImportedAdapter, out: Path, report: RetrainReport | None = None) -> dict[str, Any]:
    """Make the folder `out`: adapter, card, and report, which is returned. Raises `OSError`; then nothing is left."""
    plainly = {"imported": imported.to_json(), "retraining": report.to_json() if report else None}
    save_adapter_folder(out, imported.adapter, plainly, imported_card(imported, out.name, report))
    return plainly


def imported_card(imported: ImportedAdapter, name: str, report: RetrainReport | None = None) -> str:
    """Markdown: what the adapter is, where it came from, what training it again would cost, how to use it."""
    sections = [f"# {escape_markdown(name)}", _what(imported), "## Where it comes from", _origin(imported)]
    if report is not None:
        sections += ["## What it would lose if it were trained again", *_retraining(report)]
    sections += ["## Use it", _use(imported), "## Limits", _limits(report)]
    return "\n\n".join(sections) + "\n"


def _what(imported: ImportedAdapter) -> str:
    summary = imported.adapter.summary()
    head = imported.adapter.head
    kinds = {"lora": "A LoRA", "bottleneck": "Bottlenecks", "none": "A head alone"}
    task = TASK_WORDS[task_of(head)] if head else "embeddings: it has no head"
    rows: list[tuple[str, object]] = [
        ("ranks", ", ".join(map(str, summary["ranks"])) or "-"),
        ("layers", ", ".join(map(str, summary["layers"])) or "-"),
        ("sites", ", ".join(summary["sites"]) or "-"),
        ("labels", ", ".join(summary["labels"] or ()) or "-"),
        ("bytes", f"{summary['bytes']:,}"),
    ]
    return (
        f"{kinds[summary['kind']]} for {task}, on top of base model `{imported.base[:12]}`, which is the ordinary "
        "model (k = 0). Nothing was changed in reading it: on that model it answers as it did where it was trained, "
        f"within the rounding of the type that the model runs in.\n\n{markdown_table(['part', 'value'], rows)}"
    )


def _origin(imported: ImportedAdapter) -> str:
    origin = imported.origin
    version = f" {origin.version}" if origin.version else ""
    model = f"{escape_markdown(origin.model)} as the model that it was trained on" if origin.model else "no model"
    return (
        f"The folder {escape_markdown(imported.source)}, saved by {escape_markdown(origin.library + version)}. "
        f"It names {model}. Whether that is the base model only its shapes could tell: they fit."
    )


def _retraining(report: RetrainReport) -> Iterator[str]:
    figure = report.metric.replace("_", " ")
    chosen = f"{report.dev_examples:,} others chose the epoch" if report.dev_examples else "no others chose an epoch"
    yield (
        f"Adapters of the same make, trained on {report.train_examples:,} examples; {chosen}. All were judged on "
        f"{report.test_examples:,} further texts; differences are in points, with a standard error over those texts."
    )
    heading = ["", figure, "macro F1", "to the imported", "to retrained, k = 0", "layers run", "bytes", "seconds"]
    yield markdown_table(heading, [_row(each, report.metric) for each in report.comparisons])
    yield "\n".join(f"- {escape_markdown(note)}" for note in report.notes)


def _row(each: AdapterComparison, figure: str) -> list[str]:
    return [
        f"{'imported' if each.name == IMPORTED else 'retrained'}, k = {each.k}{', with delta' if each.delta else ''}",
        f"{each.metrics[figure]:.3f}",
        f"{each.metrics['macro_f1']:.3f}",
        str(each.to_imported.score) if each.to_imported else "-",
        str(each.to_retrained.score) if each.to_retrained else "-",
        f"{each.layers - each.k} of {each.layers}",
        f"{each.bytes:,}",
        f"{each.seconds:.1f}" if each.seconds is not None else "-",
    ]


def _use(imported: ImportedAdapter) -> str:
    url = "/v1/classify" if imported.adapter.head else "/v1/embeddings"
    body = '{"model": "TENANT/MODEL", "input": "..."}'
    return (
        "```console\n$ hmi model register TENANT/MODEL --base BASE --domain DOMAIN --adapter THIS_FOLDER\n```\n\n"
        f'and lines of a batch with `"url": "{url}", "body": {body}`. BASE is the ordinary model, with k = 0.'
    )


def _limits(report: RetrainReport | None) -> str:
    limits = [
        "What it was trained on, and how well it does on other text, is known where it was trained.",
        "On a base with k > 0 its layers would read what no layer below gave them in training; train it anew there.",
    ]
    if report is not None and report.truncated:
        limits.append(
            f"{report.truncated:,} of the texts that judged were longer than {report.config.max_tokens} tokens."
        )
    return "\n".join(f"- {each}" for each in limits)
