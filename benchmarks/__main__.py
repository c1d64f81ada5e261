"""Run every benchmark quickly: `python -m benchmarks`, which `make bench` calls."""

from __future__ import annotations

import sys

from benchmarks import throughput

if __name__ == "__main__":
    throughput.main(sys.argv[1:] or ["--quick"])
