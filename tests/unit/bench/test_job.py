from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from hmi.bench import SHAPES, Job, JobPlan, JobRun, make_job, median_run, run_job
from hmi.engine import STAGES, EngineConfig
from hmi.errors import HmiError, InvalidInput

CONFIG = EngineConfig(device="cpu", dtype="float32", threads=1)


def test_every_tenant_has_its_own_adapter_and_its_items_in_one_stretch(job: Job) -> None:
    tenants = [item.model.adapter for item in job.items]
    assert len(tenants) == 300
    assert len(set(tenants)) == 20
    changes = sum(one != other for one, other in itertools.pairwise(tenants))
    assert changes == 19
    contents = {job.source.adapter_file(str(tenant)).read_bytes() for tenant in set(tenants)}
    assert len(contents) == 20


def test_every_stage_is_traced_when_a_job_runs(run: JobRun) -> None:
    assert {span.name for span in run.spans} == set(STAGES)
    assert (run.items, run.device, run.dtype) == (300, "cpu", "float32")
    assert 8 * 300 <= run.tokens <= 64 * 300
    for share in (run.device_busy_share, run.device_busy_share_of_job, run.fetch_hidden_share):
        assert 0 < share <= 1
    assert run.device_busy_share_of_job < run.device_busy_share
    assert run.tracer.dropped == 0


def test_every_adapter_is_loaded_in_the_job_and_none_before(job: Job, run: JobRun) -> None:
    loads = [span for span in run.spans if span.name == "load-adapter"]
    assert len(loads) == len({item.model.adapter for item in job.items})
    warm = len({item.model.adapter for item in job.warming})
    assert len(run.tracer.spans("load-adapter")) == len(loads) + warm


def test_all_windows_are_found_when_lower_layers_are_looked_up(job: Job) -> None:
    tree = job.source.tree("base")
    assert tree.number == 1
    assert tree.entries > 9_000


def test_nothing_is_looked_up_at_k_0(tmp_path: Path) -> None:
    small = make_job(tmp_path, JobPlan("tiny", k=0, items=20, tenants=3))
    assert small.source.tree("base").number == 0
    assert run_job(small, CONFIG).items == 20


def test_error_of_an_item_is_raised(job: Job) -> None:
    unknown = dataclasses.replace(job.items[0], model=dataclasses.replace(job.items[0].model, adapter="missing"))
    with pytest.raises(HmiError, match="missing"):
        run_job(dataclasses.replace(job, items=(*job.items[:9], unknown)), CONFIG)


def test_median_is_one_of_the_runs(run: JobRun) -> None:
    runs = [dataclasses.replace(run, seconds=seconds) for seconds in (5.0, 1.0, 3.0, 2.0)]
    assert median_run(runs[:3]).seconds == 3.0
    assert median_run(runs).seconds == 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"shape": "huge"}, "minilm"), ({"k": 4}, "k must"), ({"tenants": 0}, "tenant"), ({"tenants": 9}, "tenant")],
)
def test_plan_is_refused_with_the_reason_when_it_is_no_job(changes: dict[str, int], message: str) -> None:
    values = {"shape": "tiny", "k": 2, "items": 8, "tenants": 2} | changes
    with pytest.raises(InvalidInput, match=message):
        JobPlan(**values)  # type: ignore[arg-type]


def test_shapes_are_those_of_the_command() -> None:
    from hmi.cli.commands.bench import _Shape

    assert {shape.value for shape in _Shape} == set(SHAPES)
