"""A training that starts from another adapter equals it above the lookup before the first step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hmi.adapters import Activation, Adapter, AdapterKind, Head, Pooling
from hmi.adapters.maths import SingleAdapter
from hmi.errors import AdapterRefused
from hmi.models.families import load_hbert
from hmi.spec import HPLMSpec, Placement, Site, read_spec
from hmi.training.adapter import train_adapter
from hmi.training.plan import TrainConfig, config_from_start
from hmi.training.trainable import TrainableAdapter
from tests.adapter_samples import bottleneck_adapter, head, lora_adapter
from tests.sentences import sentences
from tests.tiny import tiny_base

QUICK = TrainConfig(rank=4, epochs=1, batch_size=8, dtype="float32")
LABELS = ("label 0", "label 1", "label 2")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"), k=2)


@pytest.fixture(scope="module")
def spec(base: Path) -> HPLMSpec:
    return read_spec(base)


def trainable(
    spec: HPLMSpec, labels: tuple[str, ...] = LABELS, kind: AdapterKind = AdapterKind.BOTTLENECK, **others: object
) -> TrainableAdapter:
    config = TrainConfig(kind=kind, rank=8, sites=(Site.Q, Site.V), placements=(Placement.OUTPUT,))
    config = dataclasses.replace(config, **others)  # type: ignore[arg-type]
    return TrainableAdapter(spec, config, labels, Pooling.MEAN, torch.Generator().manual_seed(0))


def ordinary(spec: HPLMSpec, make: Callable[..., Adapter], rank: int = 8, own: Head | None = None) -> Adapter:
    """On all layers, as it was trained at k = 0."""
    return make(np.random.default_rng(1), rank, spec=dataclasses.replace(spec, k=0), head=own)


@pytest.mark.parametrize("rank", [8, 3])
@pytest.mark.parametrize(
    ("kind", "make"), [(AdapterKind.BOTTLENECK, bottleneck_adapter), (AdapterKind.LORA, lora_adapter)]
)
def test_upper_states_are_those_of_the_start_before_training(
    base: Path, spec: HPLMSpec, kind: AdapterKind, make: Callable[..., Adapter], rank: int
) -> None:
    start = ordinary(spec, make, rank)
    begun = trainable(spec, kind=kind)
    begun.start_from(start)
    model = load_hbert(base)
    hidden = torch.randn(2, 5, spec.hidden_size, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(2, 5, dtype=torch.bool)
    with torch.no_grad():
        ours = model.upper(hidden, mask, SingleAdapter.of(begun.export()))
        theirs = model.upper(hidden, mask, SingleAdapter.of(start))
        plain = model.upper(hidden, mask)
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(ours, plain, atol=1e-2)
    begun.export().validate(spec)


def test_head_is_copied_by_label_and_not_by_place(spec: HPLMSpec) -> None:
    own = head(np.random.default_rng(2), pooling=Pooling.MEAN)
    begun = trainable(spec, labels=("label 2", "label 0", "label 1"))
    begun.start_from(ordinary(spec, bottleneck_adapter, own=own))
    made = begun.export().head
    assert made is not None
    assert made.labels == ("label 2", "label 0", "label 1")
    np.testing.assert_array_equal(made.out, own.out[[2, 0, 1]])
    np.testing.assert_array_equal(made.out_bias, own.out_bias[[2, 0, 1]])


@pytest.mark.parametrize(
    "own",
    [
        head(np.random.default_rng(2), pooling=Pooling.CLS),
        head(np.random.default_rng(2), 4, pooling=Pooling.MEAN),
        head(np.random.default_rng(2), pooling=Pooling.MEAN, multi_label=True),
        None,
    ],
)
def test_head_starts_at_zero_when_the_start_has_another_kind(spec: HPLMSpec, own: Head | None) -> None:
    begun = trainable(spec)
    begun.start_from(ordinary(spec, bottleneck_adapter, own=own))
    made = begun.export().head
    assert made is not None
    assert not made.out.any()


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"kind": AdapterKind.LORA}, "of kind bottleneck, not lora"),
        ({"rank": 4}, "has rank 8, and 4 is trained"),
        ({"lowest_layer": 3}, "on layer 2 at output, where none is trained"),
        ({"activation": Activation.GELU}, "another activation"),
        ({"before_norm": False}, "read another state"),
    ],
)
def test_start_is_refused_when_it_has_parts_that_are_not_trained(
    spec: HPLMSpec, others: dict[str, object], reason: str
) -> None:
    begun = trainable(spec, **others)  # type: ignore[arg-type]
    with pytest.raises(AdapterRefused, match=reason):
        begun.start_from(ordinary(spec, bottleneck_adapter))


def test_start_is_refused_when_it_is_of_a_model_of_another_shape(spec: HPLMSpec) -> None:
    other = bottleneck_adapter(np.random.default_rng(1), spec=dataclasses.replace(spec, k=0, hidden_size=16))
    with pytest.raises(AdapterRefused, match=r"expected \[8, 32\]"):
        trainable(spec).start_from(other)


def test_training_begins_with_the_start(base: Path) -> None:
    learnt = train_adapter(base, sentences(160, 1), dataclasses.replace(QUICK, epochs=12, learning_rate=1e-2)).adapter
    dev = sentences(64, 2)
    config = config_from_start(learnt, QUICK)
    assert (config.kind, config.rank, config.pooling) == (learnt.kind, learnt.rank, Pooling.MEAN)
    kept = train_adapter(base, sentences(32, 3), dataclasses.replace(config, learning_rate=1e-12), dev, start=learnt)
    for name, tensor in kept.adapter.tensors().items():
        np.testing.assert_allclose(tensor, learnt.tensors()[name], atol=1e-8)
    assert kept.report.started
    gentle = dataclasses.replace(config, learning_rate=1e-3)
    ours = train_adapter(base, sentences(32, 3), gentle, dev, start=learnt).report
    anew = train_adapter(base, sentences(32, 3), gentle, dev).report
    assert ours.dev is not None
    assert anew.dev is not None
    assert ours.dev.values["accuracy"] > anew.dev.values["accuracy"] + 0.1
    assert not anew.started


def test_checkpoint_is_ignored_when_the_start_is_another(base: Path, tmp_path: Path, spec: HPLMSpec) -> None:
    class Stopped(Exception):
        pass

    def stop(progress: object) -> None:
        raise Stopped

    start, checkpoint = ordinary(spec, bottleneck_adapter, 4), tmp_path / "state"
    with pytest.raises(Stopped):
        train_adapter(base, sentences(32, 1), QUICK, start=start, on_progress=stop, checkpoint=checkpoint)
    assert train_adapter(base, sentences(32, 1), QUICK, checkpoint=checkpoint).report.resumed_at is None
    with pytest.raises(Stopped):
        train_adapter(base, sentences(32, 1), QUICK, start=start, on_progress=stop, checkpoint=checkpoint)
    again = train_adapter(base, sentences(32, 1), QUICK, start=start, checkpoint=checkpoint)
    assert again.report.resumed_at == 1
