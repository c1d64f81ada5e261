from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest

from hmi.adapters import Adapter, AdapterKind, Bottleneck, Head, Lora, Pooling, Transform
from hmi.errors import AdapterRefused
from hmi.spec import Placement, Site
from tests.adapter_samples import bottleneck_adapter, head, head_adapter, lora_adapter, random_array, sample_spec

RNG = np.random.default_rng(0)


def test_every_kind_is_accepted_when_its_shapes_fit_the_model() -> None:
    spec = sample_spec(k=2)
    for adapter in (
        lora_adapter(RNG, spec=spec, sites=spec.sites),
        bottleneck_adapter(RNG, spec=spec, places=tuple(Placement), head=head(RNG)),
        head_adapter(head(RNG, transform=Transform.POOLER)),
    ):
        adapter.validate(spec)


def test_rank_and_bytes_count_all_parts_when_ranks_differ() -> None:
    pairs = {
        (2, Site.Q): Lora(random_array(RNG, 3, 32), random_array(RNG, 32, 3)),
        (3, Site.FC1): Lora(random_array(RNG, 5, 32), random_array(RNG, 64, 5)),
    }
    adapter = dataclasses.replace(lora_adapter(RNG), lora=pairs, head=head(RNG, 7))
    assert adapter.rank == 5
    assert adapter.nbytes == 4 * (3 * 64 + 5 * 96 + 7 * 33)
    assert adapter.nbytes == sum(array.nbytes for array in adapter.tensors().values())


def test_summary_is_json_with_every_field_of_a_listing() -> None:
    summary = bottleneck_adapter(RNG, 8, before_norm=False, head=head(RNG, 2)).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["kind"] == "bottleneck"
    assert summary["placement"] == "houlsby"
    assert summary["layers"] == [0, 1, 2, 3]
    assert summary["labels"] == ["label 0", "label 1"]
    assert lora_adapter(RNG).summary()["placement"] is None


def _with_lora(adapter: Adapter, **changes: object) -> Adapter:
    key = (2, Site.Q)
    return dataclasses.replace(adapter, lora={**adapter.lora, key: dataclasses.replace(adapter.lora[key], **changes)})  # type: ignore[arg-type]


def _with_bottleneck(adapter: Adapter, **changes: object) -> Adapter:
    key = (2, Placement.OUTPUT)
    part: Bottleneck = dataclasses.replace(adapter.bottleneck[key], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(adapter, bottleneck={**adapter.bottleneck, key: part})


def _with_head(**changes: object) -> Adapter:
    changed: Head = dataclasses.replace(head(RNG, 3), **changes)  # type: ignore[arg-type]
    return head_adapter(changed)


def _poisoned() -> np.ndarray:
    array = random_array(RNG, 4, 32)
    array[1, 7] = np.nan
    return array


REFUSALS: list[tuple[str, Callable[[], Adapter], str]] = [
    ("kind", lambda: dataclasses.replace(lora_adapter(RNG), kind=AdapterKind.BOTTLENECK), "of kind bottleneck"),
    ("empty", lambda: dataclasses.replace(lora_adapter(RNG), lora={}), "with 0 LoRA pairs"),
    ("nothing", lambda: Adapter(AdapterKind.NONE, {}, {}, True, lora_adapter(RNG).activation, None), "neither weights"),
    (
        "both",
        lambda: dataclasses.replace(lora_adapter(RNG), bottleneck=bottleneck_adapter(RNG).bottleneck),
        "with 4 bottlenecks",
    ),
    ("layer", lambda: dataclasses.replace(lora_adapter(RNG), lora={(4, Site.Q): Lora(_poisoned(), _poisoned())}), "4"),
    ("a's width", lambda: _with_lora(lora_adapter(RNG), a=random_array(RNG, 4, 31)), r"lora\.2\.q\.a has shape"),
    ("b's rank", lambda: _with_lora(lora_adapter(RNG), b=random_array(RNG, 32, 5)), r"lora\.2\.q\.b has shape"),
    ("rank 0", lambda: _with_lora(lora_adapter(RNG), a=random_array(RNG, 0, 32)), "rank >= 1"),
    ("no matrix", lambda: _with_lora(lora_adapter(RNG), a=random_array(RNG, 32)), "rank >= 1"),
    (
        "giant rank",
        lambda: _with_lora(lora_adapter(RNG), a=np.zeros((1025, 32), np.float32), b=np.zeros((32, 1025), np.float32)),
        r"lora\.2\.q has rank 1025; at most 1024",
    ),
    ("NaN", lambda: _with_lora(lora_adapter(RNG), a=_poisoned()), r"lora\.2\.q\.a holds NaN"),
    ("float64", lambda: _with_lora(lora_adapter(RNG), a=np.zeros((4, 32))), "is float64"),
    (
        "down",
        lambda: _with_bottleneck(bottleneck_adapter(RNG), down=random_array(RNG, 8, 9)),
        r"output\.down has shape",
    ),
    ("down rank 0", lambda: _with_bottleneck(bottleneck_adapter(RNG), down=random_array(RNG, 0, 32)), "rank >= 1"),
    (
        "down_bias",
        lambda: _with_bottleneck(bottleneck_adapter(RNG), down_bias=random_array(RNG, 7)),
        "down_bias has shape",
    ),
    ("up", lambda: _with_bottleneck(bottleneck_adapter(RNG), up=random_array(RNG, 8, 32)), r"output\.up has shape"),
    (
        "giant down",
        lambda: _with_bottleneck(bottleneck_adapter(RNG), down=np.zeros((1025, 32), np.float32)),
        r"bottleneck\.2\.output has rank 1025",
    ),
    ("up_bias", lambda: _with_bottleneck(bottleneck_adapter(RNG), up_bias=random_array(RNG, 8)), "up_bias has shape"),
    ("labels", lambda: _with_head(labels=("a", "b")), "head.out has shape"),
    ("regression", lambda: _with_head(labels=("a",)), "regression"),
    ("duplicate labels", lambda: _with_head(labels=("a", "a", "b")), "distinct"),
    ("many labels", lambda: head_adapter(head(RNG, 4097)), "4097 labels; at most 4096"),
    ("long label", lambda: _with_head(labels=("a" * 257, "b", "c")), "longer than 256"),
    ("line break", lambda: _with_head(labels=("a\nb", "b", "c")), r"label 'a\\nb' holds control"),
    ("escape", lambda: _with_head(labels=("\x1b[31m", "b", "c")), "control"),
    ("half a pair", lambda: _with_head(labels=("\ud800", "b", "c")), "control"),
    ("no bias", lambda: _with_head(out_bias=random_array(RNG, 4)), "head.out_bias has shape"),
    ("no dense", lambda: _with_head(transform=Transform.DENSE), "head.dense is missing"),
    ("half a dense", lambda: _with_head(transform=Transform.DENSE, dense=random_array(RNG, 32, 32)), "come together"),
    ("idle dense", lambda: _with_head(dense=random_array(RNG, 32, 32), dense_bias=random_array(RNG, 32)), "none"),
    ("mean pooler", lambda: _with_head(pooling=Pooling.MEAN, transform=Transform.POOLER), "mean pooling"),
]


@pytest.mark.parametrize(("name", "make", "reason"), REFUSALS, ids=[name for name, _, _ in REFUSALS])
def test_adapter_is_refused_with_tensor_and_reason(name: str, make: Callable[[], Adapter], reason: str) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        make().validate(sample_spec())


def test_layers_below_k_are_refused_when_they_are_looked_up() -> None:
    with pytest.raises(AdapterRefused, match=r"lora\.0\.q: layer 0 is one of the 2 lower layers.*2\.\.3 only"):
        lora_adapter(RNG).validate(sample_spec(k=2))
    with pytest.raises(AdapterRefused, match=r"bottleneck\.0\.output: layer 0"):
        bottleneck_adapter(RNG).validate(sample_spec(k=1))


def test_pooler_head_is_refused_when_the_base_has_no_pooler() -> None:
    spec = sample_spec(has_pooler=False)
    with pytest.raises(AdapterRefused, match="this base model has none"):
        head_adapter(head(RNG, transform=Transform.POOLER)).validate(spec)
    head_adapter(head(RNG, transform=Transform.POOLER, own_dense=True)).validate(spec)
