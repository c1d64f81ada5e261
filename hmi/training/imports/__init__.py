"""Adapters that were trained elsewhere: importing them exactly, and comparing them with retrained ones.

`import_adapter` reads a folder of PEFT, AdapterHub or HMI for a base with k = 0. `retrain` trains adapters like it on
other bases and evaluates all of them on the same texts.
"""

from __future__ import annotations

from hmi.training.imports.imported import ImportedAdapter, import_adapter, save_imported
from hmi.training.imports.retraining import RetrainTarget, name_targets, retrain

__all__ = ["ImportedAdapter", "RetrainTarget", "import_adapter", "name_targets", "retrain", "save_imported"]
