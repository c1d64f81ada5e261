"""Run every benchmark quickly, each in a process of its own: `python -m benchmarks`, which `make bench` calls.

Options are handed on to all of them: `python -m benchmarks --json`.
"""

from __future__ import annotations

import subprocess
import sys

_BENCHMARKS = (
    "adapters",
    "peers",
    "tenants",
    "overlap",
    "tree",
    "flush",
    "coverage",
    "probes",
    "beside_training",
    "recipes",
    "accuracy",
)


def main(argv: list[str]) -> int:
    """The number of benchmarks that failed."""
    failed = 0
    for name in _BENCHMARKS:
        print(f"== python -m benchmarks.{name} {' '.join(['--quick', *argv])}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--quick", *argv], check=False)
        failed += done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
