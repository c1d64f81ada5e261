"""What a training reports: progress, metrics, reports, model cards, and comparisons of adapters. Plain data, no torch.

`TrainProgress` is reported after every step, `TrainReport` at the end. An `Evaluation` has the metrics of label
predictions (`evaluation.py`) and keeps the answers text by text, so that `compare_evaluations` can give a score
difference with its standard error.
"""

from __future__ import annotations

from hmi.training.reports.card import (
    TASK_WORDS,
    bullets,
    escape_markdown,
    markdown_table,
    save_adapter_folder,
    save_trained,
    usage,
)
from hmi.training.reports.evaluation import (
    Evaluation,
    compare_evaluations,
    evaluate_classes,
    evaluate_entities,
    evaluate_multi_label,
    evaluate_words,
)
from hmi.training.reports.metrics import Metrics, language_metrics, ranking_metrics
from hmi.training.reports.report import (
    IMPORTED,
    AdapterComparison,
    OnProgress,
    RetrainReport,
    TrainedAdapter,
    TrainProgress,
    TrainReport,
)

__all__ = [
    "IMPORTED",
    "TASK_WORDS",
    "AdapterComparison",
    "Evaluation",
    "Metrics",
    "OnProgress",
    "RetrainReport",
    "TrainProgress",
    "TrainReport",
    "TrainedAdapter",
    "bullets",
    "compare_evaluations",
    "escape_markdown",
    "evaluate_classes",
    "evaluate_entities",
    "evaluate_multi_label",
    "evaluate_words",
    "language_metrics",
    "markdown_table",
    "ranking_metrics",
    "save_adapter_folder",
    "save_trained",
    "usage",
]
