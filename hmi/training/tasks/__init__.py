"""The tasks that an adapter learns: classes, multi-label, tags of words, embeddings, language modelling.

An `Objective` prepares examples, gives the loss of a batch and evaluates a dev set; there is one module for each.
`Network` is the frozen model with the adapter on it, `Preprocessor` turns texts into the states that it reads. Start
reading at `objective.py`, then `classification.py`.
"""

from __future__ import annotations

from hmi.training.tasks.classification import Classification, MultiLabel, class_labels, multi_labels
from hmi.training.tasks.contrast import Contrast, require_contrast
from hmi.training.tasks.language import Language
from hmi.training.tasks.network import FixedAdapter, Network
from hmi.training.tasks.objective import LabelObjective, Objective, Preprocessor, TaskData
from hmi.training.tasks.tagging import Tagging, tag_labels

__all__ = [
    "Classification",
    "Contrast",
    "FixedAdapter",
    "LabelObjective",
    "Language",
    "MultiLabel",
    "Network",
    "Objective",
    "Preprocessor",
    "Tagging",
    "TaskData",
    "class_labels",
    "multi_labels",
    "require_contrast",
    "tag_labels",
]
