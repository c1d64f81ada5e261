"""What lies beside trained weights for people and programs: the model card and the report, in one folder that appears
whole or not at all."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hmi.adapters import Adapter
from hmi.adapters.formats import FILE_NAME, save_adapter
from hmi.spec import TaskKind
from hmi.training.reports.markdown import escape_markdown, markdown_table
from hmi.training.reports.metrics import Metrics
from hmi.training.reports.report import TrainedAdapter, TrainReport

__all__ = ["CARD", "REPORT", "TASK_WORDS", "model_card", "save_adapter_folder", "save_trained"]

CARD, REPORT = "README.md", "report.json"
_MOST_CONFUSED = 20  # labels; a wider table is read by nobody

TASK_WORDS = {
    TaskKind.CLASSIFICATION: "one label for each text",
    TaskKind.MULTI_LABEL: "any number of labels for each text",
    TaskKind.TOKENS: "a label for each word",
    TaskKind.EMBEDDING: "embeddings",
    TaskKind.LANGUAGE: "how texts go on",
}


def save_trained(trained: TrainedAdapter, out: Path, data: str) -> None:
    """Make the folder `out`: adapter, report and card. `data` is what the card calls the training text.

    Raises `OSError`; then nothing is left.
    """
    save_adapter_folder(out, trained.adapter, trained.report.to_json(), model_card(trained.report, out.name, data))


def save_adapter_folder(out: Path, adapter: Adapter, report: Mapping[str, Any], card: str) -> None:
    """Make the folder `out` of these three. Raises `OSError`; then nothing is left."""
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    beside.mkdir(parents=True)
    try:
        save_adapter(adapter, beside / FILE_NAME)
        (beside / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (beside / CARD).write_text(card, encoding="utf-8")
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def model_card(report: TrainReport, name: str, data: str) -> str:
    """Markdown: what the adapter is, what it was trained on, how well it does, how to use it, what to beware of."""
    return (
        "\n\n".join(
            [
                f"# {escape_markdown(name)}",
                _what(report),
                "## Trained on",
                _trained_on(report, data),
                "## How well it does",
                *_judgement(report),
                "## Use it",
                _use(report),
                "## Limits",
                _limits(report),
            ]
        ).rstrip()
        + "\n"
    )


def _what(report: TrainReport) -> str:
    config = report.config
    where = f"looks {report.k} lower layers up" if report.k else "is the ordinary model (k = 0)"
    kind = {"lora": f"A LoRA of rank {config.rank}", "bottleneck": f"Bottlenecks of width {config.rank}"}
    return (
        f"{kind.get(config.kind.value, 'A head alone')} for {TASK_WORDS[report.task]}, on top of base model "
        f"`{report.base[:12]}`, which {where}. It runs on that base alone: the digest of another is refused."
    )


def _trained_on(report: TrainReport, data: str) -> str:
    config = report.config
    early = f" of at most {config.epochs}" if report.epochs < config.epochs else ""
    which = f", of which number {report.best_epoch} was kept" if report.dev else ""
    began = ", begun with another adapter's weights" if report.started else ""
    lines = [
        f"{report.examples:,} examples of {escape_markdown(data)}, {report.tokens:,} tokens in all; "
        f"{report.epochs} epochs{early}{which}{began}; "
        f"{report.seconds:.1f} s, {report.seconds_per_thousand_examples:.1f} s for a thousand.",
    ]
    if report.left_out:
        lines.append(f"{report.left_out:,} examples more were left out, because their text judges.")
    if report.labels:
        pairs = zip(report.labels, report.label_counts, strict=True)
        lines.append(markdown_table(["label", "examples" if report.task is not TaskKind.TOKENS else "words"], pairs))
    return "\n\n".join(lines)


def _judgement(report: TrainReport) -> list[str]:
    dev = report.dev
    if dev is None:
        return ["Nobody knows: all examples were trained on, and none were kept to judge by."]
    as_it_is = report.task in (TaskKind.EMBEDDING, TaskKind.LANGUAGE)
    compared = "the base model as it is" if as_it_is else "always the most frequent label"
    figures = [(name.replace("_", " "), f"{value:.3f}") for name, value in dev.values.items()]
    parts = [
        f"On {report.dev_examples:,} examples that were not trained on; they chose the epoch, so on new text it may do "
        "a little worse.",
        markdown_table(
            ["figure", "value"], [*figures, (f"{dev.name.replace('_', ' ')}: {compared}", f"{report.baseline:.3f}")]
        ),
    ]
    if dev.labels:
        rows = [
            (each.label, f"{each.precision:.3f}", f"{each.recall:.3f}", f"{each.f1:.3f}", each.support)
            for each in dev.labels
        ]
        parts.append(markdown_table(["label", "precision", "recall", "F1", "support"], rows))
    return parts + _confusion(report.labels, dev)


def _confusion(labels: Sequence[str], dev: Metrics) -> list[str]:
    if dev.confusion is None or len(labels) > _MOST_CONFUSED:
        return []
    rows = [(label, *counts) for label, counts in zip(labels, dev.confusion, strict=True)]
    return ["How often a label (row) was answered with another (column):", markdown_table(["", *labels], rows)]


def _use(report: TrainReport) -> str:
    urls = {TaskKind.EMBEDDING: "/v1/embeddings", TaskKind.LANGUAGE: "/v1/completions"}
    url = urls.get(report.task, "/v1/classify")
    field = "prompt" if report.task is TaskKind.LANGUAGE else "input"
    body = f'{{"model": "TENANT/MODEL", "{field}": "..."}}'
    return (
        "```console\n$ hmi model register TENANT/MODEL --base BASE --domain DOMAIN --adapter THIS_FOLDER\n```\n\n"
        f'and lines of a batch with `"url": "{url}", "body": {body}`. The domain is the one that it was trained for.'
    )


def _limits(report: TrainReport) -> str:
    limits = [
        "It knows what its examples showed. Text of another kind, language or time may be answered worse than the "
        'figures say, and never with "I do not know".',
        f"Texts of more than {report.config.max_tokens} tokens were cut in training.",
    ]
    if report.task is TaskKind.TOKENS:
        limits.append("Words are the tokenizer's; a label that ends inside one covers all of it.")
    if report.k:
        limits.append("Under the miss policy `backoff` answers may differ from those that were judged here.")
    return "\n".join(f"- {each}" for each in limits)
