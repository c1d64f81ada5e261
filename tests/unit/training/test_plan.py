from __future__ import annotations

import json

import pytest

from hmi.adapters import Activation, AdapterKind, Pooling
from hmi.spec import Placement, Site, TaskKind
from hmi.training.data import FileFormat
from hmi.training.plan import TrainConfig, TrainingPlan


def test_plan_is_the_same_after_a_json_round_trip() -> None:
    config = TrainConfig(
        kind=AdapterKind.LORA,
        rank=7,
        sites=(Site.Q, Site.FC2),
        placements=(Placement.ATTENTION, Placement.OUTPUT),
        before_norm=False,
        activation=Activation.SWISH,
        pooling=Pooling.CLS,
        learning_rate=0.1,
        seed=3,
    )
    for form in (None, FileFormat.CSV):
        plan = TrainingPlan(TaskKind.MULTI_LABEL, FileFormat.JSONL, form, config)
        again = TrainingPlan.from_json(json.loads(json.dumps(plan.to_json())))
        assert again == plan
        assert again.config.activation is Activation.SWISH  # a string that is equal would not do


@pytest.mark.parametrize("change", [{"task": "poetry"}, {"training_form": "xml"}, {"config": {}}])
def test_a_plan_of_something_else_is_refused(change: dict[str, object]) -> None:
    plan = TrainingPlan(TaskKind.CLASSIFICATION, FileFormat.JSONL, None, TrainConfig())
    with pytest.raises((ValueError, KeyError, TypeError)):
        TrainingPlan.from_json(plan.to_json() | change)
