"""TODO"""

from __future__ import annotations

from hmi.training.imports.imported import ImportedAdapter, import_adapter, save_imported
from hmi.training.imports.retraining import Faster, name_targets, retrain

__all__ = ["Faster", "ImportedAdapter", "import_adapter", "name_targets", "retrain", "save_imported"]
