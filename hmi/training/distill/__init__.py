"""Base models from pretrained models: conversion, calibration, distillation, estimators and how faithful they are.

`build_base` is the entry point: it converts a pretrained model, fits it to text in closed form (`calibration.py`),
distills it from the unchanged model (`student.py`, `teacher.py`) and fits an estimator for rows that no tree holds
(`estimator.py`). `Fidelity` says how near the result is to the pretrained model.
"""

from __future__ import annotations

from hmi.training.distill.base import BaseReport, add_estimator, apply_weight_diff, build_base
from hmi.training.distill.calibration import Calibration, Moments, fit_calibration
from hmi.training.distill.corpora import at_most, split_corpora, split_texts
from hmi.training.distill.estimator import EstimatorConfig, fit_estimator
from hmi.training.distill.fidelity import Fidelity, compare_states, measure_fidelity
from hmi.training.distill.student import DistillConfig, Student, default_distill_config, distill
from hmi.training.distill.teacher import Teacher

__all__ = [
    "BaseReport",
    "Calibration",
    "DistillConfig",
    "EstimatorConfig",
    "Fidelity",
    "Moments",
    "Student",
    "Teacher",
    "add_estimator",
    "apply_weight_diff",
    "at_most",
    "build_base",
    "compare_states",
    "default_distill_config",
    "distill",
    "fit_calibration",
    "fit_estimator",
    "measure_fidelity",
    "split_corpora",
    "split_texts",
]
