"""Measure the engine on this machine: what `hmi bench` and the benchmarks share.

Base models with random weights (`bases`), random texts (`text`), tenants with random adapters on disk (`tenants`), and
a job submitted as a worker submits it (`job`). Speed does not depend on what the weights are.
"""

from __future__ import annotations

from hmi.bench.bases import fill_tree, make_base, make_tree
from hmi.bench.job import Job, JobPlan, JobRun, make_job, median_run, run_job, submit_all
from hmi.bench.shapes import SHAPES, Shape
from hmi.bench.tenants import OneBase, forget_pages, make_adapter
from hmi.bench.text import random_texts

__all__ = [
    "SHAPES",
    "Job",
    "JobPlan",
    "JobRun",
    "OneBase",
    "Shape",
    "fill_tree",
    "forget_pages",
    "make_adapter",
    "make_base",
    "make_job",
    "make_tree",
    "median_run",
    "random_texts",
    "run_job",
    "submit_all",
]
