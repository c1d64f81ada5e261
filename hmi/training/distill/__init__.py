"""TODO"""

from __future__ import annotations

from hmi.training.distill.base import BaseReport, add_estimator, apply_difference, build_base
from hmi.training.distill.calibration import Calibration, Moments, fit
from hmi.training.distill.corpora import split_corpora
from hmi.training.distill.distill import DistilConfig, DistilProgress, Student, distil, recipe_for
from hmi.training.distill.estimator import EstimatorConfig, fit_estimator
from hmi.training.distill.fidelity import Fidelity, compare, measure_fidelity
from hmi.training.distill.teacher import Teacher

__all__ = [
    "BaseReport",
    "Calibration",
    "DistilConfig",
    "DistilProgress",
    "EstimatorConfig",
    "Fidelity",
    "Moments",
    "Student",
    "Teacher",
    "add_estimator",
    "apply_difference",
    "build_base",
    "compare",
    "distil",
    "fit",
    "fit_estimator",
    "measure_fidelity",
    "recipe_for",
    "split_corpora",
]
