"""TODO"""

from __future__ import annotations

from hmi.training.reports.card import TASK_WORDS, save_folder, save_trained
from hmi.training.reports.comparison import IMPORTED, AdapterComparison, RetrainReport
from hmi.training.reports.markdown import plain, table
from hmi.training.reports.metrics import (
    Metrics,
    class_metrics,
    entity_metrics,
    language_metrics,
    multi_label_metrics,
    ranking_metrics,
    word_metrics,
)
from hmi.training.reports.report import OnProgress, TrainedAdapter, TrainProgress, TrainReport
from hmi.training.reports.score_delta import (
    Examined,
    Tally,
    class_tally,
    difference,
    entity_tally,
    multi_label_tally,
    word_tally,
)

__all__ = [
    "IMPORTED",
    "TASK_WORDS",
    "AdapterComparison",
    "Examined",
    "Metrics",
    "OnProgress",
    "RetrainReport",
    "Tally",
    "TrainProgress",
    "TrainReport",
    "TrainedAdapter",
    "class_metrics",
    "class_tally",
    "difference",
    "entity_metrics",
    "entity_tally",
    "language_metrics",
    "multi_label_metrics",
    "multi_label_tally",
    "plain",
    "ranking_metrics",
    "save_folder",
    "save_trained",
    "table",
    "word_metrics",
    "word_tally",
]
