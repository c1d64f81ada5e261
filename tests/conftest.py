"""What all tests share: nothing that differs from run to run or from place to place.

A run that fails by chance says nothing about the change that it was run for. So property tests try the same cases
every time; to look for cases that nobody has thought of, draw others: `HYPOTHESIS_CASES=random make test-unit`.
"""

from __future__ import annotations

import os

from hypothesis import settings

# Two threads of torch that wait for each other on cores that others use are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tables of commands are as wide as these say, and a test process of several is told 80.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("random", deadline=None)
settings.load_profile("random" if os.environ.get("HYPOTHESIS_CASES") == "random" else "repeatable")
