"""The comparison with peers: what is compared is the same work, and the report says so or says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import full_model, hmi_engine, peft_runner
from benchmarks.peers.contender import CONTENDERS
from benchmarks.peers.driver import Disagreement, differences
from benchmarks.peers.fleet import Fleet
from benchmarks.peers.plan import NO_TENANT, Batch, Plan, Workload
from benchmarks.peers.report import ENGINES, as_text, flops_of, make_report
from benchmarks.peers.tenants import write_tenants
from hmi.bench import Shape

PLAN = Plan(
    shape=Shape(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64),
    tokens=8,
    sequences=6,
    tenants=3,
    k=2,
    in_flight=2,
    device="cpu",
    dtype="float32",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("run")
    PLAN.write(made)
    write_tenants(PLAN, made)
    return made


def test_plan_is_read_back_as_it_was_written(folder: Path) -> None:
    assert Plan.read(folder) == PLAN


def test_batches_are_the_same_in_every_process_and_differ_from_each_other() -> None:
    first, second = PLAN.batches(Workload.TENANTS, 2)
    again = PLAN.batches(Workload.DISTINCT, 1)[0]
    assert np.array_equal(first.ids, again.ids)
    assert not np.array_equal(first.ids, second.ids)


@pytest.mark.parametrize(
    ("workload", "owners"),
    [
        (Workload.TENANTS, (0, 1, 2, 0, 1, 2)),
        (Workload.DISTINCT, (0, 1, 2, 3, 4, 5)),
        (Workload.NONE, (NO_TENANT,) * 6),
    ],
)
def test_rows_go_to_tenants_by_turns(workload: Workload, owners: tuple[int, ...]) -> None:
    assert PLAN.batches(workload, 1)[0].tenants == owners


def test_hmi_and_peft_answer_the_same_and_a_wrong_tenant_is_found_out(folder: Path) -> None:
    batches = PLAN.batches(Workload.TENANTS, 2)
    with hmi_engine.start(PLAN, folder, "all") as hmi:
        ours = hmi.run(batches)
    answers = {"hmi_k0": ours}
    for variant in ("mixed", "per_tenant"):
        with peft_runner.start(PLAN, folder, variant) as peft:
            answers[variant] = peft.run(batches)
    with peft_runner.start(PLAN, folder, "mixed") as peft:
        swapped = peft.run([Batch(each.ids, each.tenants[1:] + each.tenants[:1]) for each in batches])
    assert ours.shape == (12, 2)
    assert max(differences(answers, "float32").values()) < 1e-4
    with pytest.raises(Disagreement, match="swapped and hmi_k0"):
        differences({"hmi_k0": ours, "swapped": swapped}, "bfloat16")


def test_upper_layers_serve_every_workload_from_the_tree_alone(folder: Path) -> None:
    with hmi_engine.start(PLAN, folder, "upper") as hmi:
        for workload in Workload:
            assert hmi.run(PLAN.batches(workload, 2)).shape == (12, 2)
        hmi.check()
        with pytest.raises(RuntimeError, match="were not in the tree"):
            hmi.run([Batch(batch.ids[:, ::-1].copy(), batch.tenants) for batch in PLAN.batches(Workload.NONE, 1)])
            hmi.check()


def test_full_model_gives_states_of_every_row(folder: Path) -> None:
    with full_model.start(PLAN, folder, "") as runner:
        assert runner.run(PLAN.batches(Workload.TENANTS, 1)).shape == (6, 32)


def test_answers_that_are_not_finite_are_a_disagreement() -> None:
    good = np.full((2, 2), 0.5, np.float32)
    with pytest.raises(Disagreement, match="not finite"):
        differences({"hmi_k0": good, "peft": good * np.nan}, "bfloat16")


def test_report_has_every_key_and_the_ratios_of_medians() -> None:
    rates = {name: [10.0, 30.0, 20.0] for name in (*ENGINES, "peft_upper", "tuned_peft", "tuned_full_model")}
    rates |= {"hmi_k6": [60.0], "hmi_k0": [30.0], "hmi_distinct": [45.0], "hmi_none": [50.0]}
    report = make_report(PLAN, 1e12, rates, {})
    assert report["gemm_tflops"] == 1
    assert report["engines"].keys() == set(ENGINES)
    assert all(each.keys() == {"seq_s", "fraction_of_gemm"} for each in report["engines"].values())
    assert report["engines"]["peft"]["seq_s"] == 20
    assert report["ratio_vs_peft"] == report["ratio_vs_full_model"] == 3
    assert report["distinct_tenants_over_none"] == 0.9
    assert report["extras"]["ratio_k0_vs_peft"] == 1.5
    assert report["extras"]["tuned"]["peft"]["ratio"] == 3
    assert report["extras"]["peft_upper"]["ratio"] == 3


def test_share_of_gemm_counts_only_what_is_computed() -> None:
    upper, whole, plain = (flops_of(name, PLAN) for name in ("hmi_k6", "peft", "full_model"))
    assert upper < whole / 2
    assert plain < flops_of("peft_upper", PLAN) < whole
    figure = make_report(PLAN, 100 * upper, {"hmi_k6": [50.0]}, {})["engines"]["hmi_k6"]
    assert figure["fraction_of_gemm"] == 0.5


def test_engine_without_its_library_is_reported_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HMI_POLYLORA_PATH", str(tmp_path))
    polylora = next(each for each in CONTENDERS if each.name == "polylora")
    with Fleet([polylora], tmp_path) as fleet:
        fleet.load()
    assert "No module named 'polylora'" in fleet.unavailable["polylora"]
    report = make_report(PLAN, 1e12, {"hmi_k6": [50.0]}, fleet.unavailable)
    assert report["engines"]["polylora"]["seq_s"] is None
    assert "polylora" in report["engines"]["polylora"]["unavailable"]
    report["extras"] |= {"largest_difference": None, "differences": {}}
    assert "polylora: unavailable, ModuleNotFoundError" in as_text(report)
