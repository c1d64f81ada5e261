"""The commands of `hmi`, a module for each subject.

`serve` starts services and the demonstration; `tenants`, `knowledge`, `tree` and `jobs` call the API; `build`, `train`,
`model_import` and `bench` work on files alone. `options` has what they share: options, the client, waiting and output.
No module imports anything heavy before its command runs.
"""

from __future__ import annotations

from hmi.cli.commands import bench, build, jobs, knowledge, serve, tenants, train, tree

__all__ = ["bench", "build", "jobs", "knowledge", "serve", "tenants", "train", "tree"]
