"""What looking the lower layers up costs in accuracy: `python -m benchmarks.accuracy`."""
