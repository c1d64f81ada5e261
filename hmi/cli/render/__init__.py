"""TODO"""

from __future__ import annotations

from hmi.cli.render.basics import (
    BatchProgress,
    adapter_words,
    batch_table,
    bytes_words,
    hit_rate,
    moment,
    residency,
    table,
    workload,
)
from hmi.cli.render.fidelity import fidelity_table
from hmi.cli.render.ngrams import difference, top_ngrams
from hmi.cli.render.training_bar import TrainingBar, training_words
from hmi.cli.render.tree import domain_tree, knowledge_tree, related
from hmi.cli.render.tuning import TuningBar, job_table
from hmi.cli.render.versions import BuildProgress, versions_list

__all__ = [
    "BatchProgress",
    "BuildProgress",
    "TrainingBar",
    "TuningBar",
    "adapter_words",
    "batch_table",
    "bytes_words",
    "difference",
    "domain_tree",
    "fidelity_table",
    "hit_rate",
    "job_table",
    "knowledge_tree",
    "moment",
    "related",
    "residency",
    "table",
    "top_ngrams",
    "training_words",
    "versions_list",
    "workload",
]
