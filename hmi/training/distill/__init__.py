"""TODO"""

from __future__ import annotations

from hmi.training.distill.base import BaseReport, add_estimator, apply_weight_diff, build_base
from hmi.training.distill.calibration import Calibration, Moments, fit_calibration
from hmi.training.distill.corpora import split_corpora
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
    "build_base",
    "compare_states",
    "default_distill_config",
    "distill",
    "fit_calibration",
    "fit_estimator",
    "measure_fidelity",
    "split_corpora",
]
