"""TODO"""

from __future__ import annotations

from hmi.training.tasks.classification import Classification, MultiLabel, class_labels, multi_labels
from hmi.training.tasks.contrast import Contrast, require_contrast
from hmi.training.tasks.fixed import FixedAdapter
from hmi.training.tasks.language import Language
from hmi.training.tasks.network import Network
from hmi.training.tasks.objective import LabelObjective, Objective, Preprocessor, TaskData
from hmi.training.tasks.tagging import Tagging, tag_labels
from hmi.training.tasks.trainable import TrainableAdapter

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
    "TrainableAdapter",
    "class_labels",
    "multi_labels",
    "require_contrast",
    "tag_labels",
]
