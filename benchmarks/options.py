"""The options that every benchmark has, and where what they fetch is kept."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

__all__ = ["add_options", "cache_folder"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--device`, `--dtype`, `--quick` and `--json`."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under a minute")
    parser.add_argument("--json", action="store_true", help="the report as JSON instead of a table")


def cache_folder() -> Path:
    """Where downloads, and what takes long to make, are kept for all runs of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmi"
