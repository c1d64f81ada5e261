"""Measurements, each a ratio in one run: same machine, same dtype, same sequences, medians.

`python -m benchmarks` lists them; each runs as `python -m benchmarks.NAME` with `--json` and `--quick`.
They need the engine's packages only, so they also run from a checkout on a bare GPU machine.
"""
