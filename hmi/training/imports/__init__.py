"""TODO"""

from __future__ import annotations

from hmi.training.imports.imported import ImportedAdapter, import_adapter, save_imported
from hmi.training.imports.retraining import RetrainTarget, name_targets, retrain

__all__ = ["ImportedAdapter", "RetrainTarget", "import_adapter", "name_targets", "retrain", "save_imported"]
