"""What ten thousand registered tenants cost beside one: `python -m benchmarks.tenants`."""
