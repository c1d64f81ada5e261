from __future__ import annotations

import pytest

from hmi.bench import Job, JobPlan, JobRun, make_job, run_job
from hmi.engine import EngineConfig


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("job"), JobPlan("tiny", k=2, items=300, tenants=20))


@pytest.fixture(scope="session")
def run(job: Job) -> JobRun:
    return run_job(job, EngineConfig(device="cpu", dtype="float32", threads=1))
