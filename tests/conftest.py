"""What all tests share: nothing differs from run to run or from machine to machine.

Property tests try the same cases every time; `HYPOTHESIS_CASES=random make test-unit` draws others.
A skipped test is a failure, unless it needs a GPU: `make test` installs everything that the tests need.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Generator

import pytest
from hypothesis import settings

# Two threads of torch that wait for each other on cores that others use are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tables of commands are as wide as these say, and pytest-xdist sets them to 80.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("random", deadline=None)
settings.load_profile("random" if os.environ.get("HYPOTHESIS_CASES") == "random" else "repeatable")

if (sys.platform, platform.machine()) != ("linux", "x86_64"):  # triton has no wheel for other platforms
    collect_ignore = ["unit/adapters/test_kernels.py", "unit/adapters/test_kernel_compilation.py"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not item.get_closest_marker("gpu"):
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if collector.path.parent.name != "gpu":
        _fail_if_skipped(report)
    return report


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and only tests that need a GPU may be: {report.longrepr}"
