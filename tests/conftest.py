"""What all tests share: property tests that try the same cases in every run.

A run that fails by chance says nothing about the change that it was run for. To look for cases that nobody has
thought of, draw others: `HYPOTHESIS_CASES=random make test-unit`.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("random", deadline=None)
settings.load_profile("random" if os.environ.get("HYPOTHESIS_CASES") == "random" else "repeatable")
