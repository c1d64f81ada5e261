"""Knowledge trees at scale, lookups and rebuilds: `python -m benchmarks.tree`."""
