"""What is tried, and how much of everything a run takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.recipes.keeping import Keep
from benchmarks.recipes.low_rank import RANK, LowRank
from benchmarks.recipes.students import LastLayer, LostNeighbours, Tried, WithAttention
from benchmarks.recipes.vectors import ThreeVectors
from hmi.training.distill import DistillConfig


@dataclass(frozen=True, slots=True)
class Plan:
    steps: int  # of each distillation
    batch_size: int
    every: int  # of so many texts one is taken
    calibration_texts: int  # at most, for the closed form


FULL = Plan(steps=300, batch_size=32, every=1, calibration_texts=4000)
QUICK = Plan(steps=3, batch_size=8, every=50, calibration_texts=100)


@dataclass(frozen=True, slots=True)
class Training:
    """One distillation; as it stands, the product's."""

    k: int = 3
    student: type[Tried] = Tried
    thinned: float = DistillConfig().thinned
    is_distilled: bool = True


@dataclass(frozen=True, slots=True)
class Variant:
    """A line of the table: what was trained, and how its difference from the pretrained model is kept."""

    about: str
    training: Training = Training()
    keep: Keep = Keep.FOUR_BITS


VARIANTS: Mapping[str, Variant] = {
    "product": Variant("as `hmi build base` makes it: states after every layer, 0.4 of the texts thinned, 4 bits"),
    "k=1": Variant("one layer looked up", Training(k=1)),
    "k=2": Variant("two layers looked up", Training(k=2)),
    "closed-form": Variant("fitted and not distilled", Training(is_distilled=False)),
    "three-vectors": Variant("rows of three vectors (SkipBERT)", Training(student=ThreeVectors)),
    "attention": Variant("attention of the upper layers compared too", Training(student=WithAttention)),
    "last-layer": Variant("states of the last layer compared alone", Training(student=LastLayer)),
    "thinned-0": Variant("no window loses a neighbour", Training(thinned=0.0)),
    "neighbours-0.1": Variant(
        "every window loses each neighbour in a tenth of all cases", Training(3, LostNeighbours, 0.0)
    ),
    "thinned-1": Variant("every text thinned", Training(thinned=1.0)),
    "low-rank": Variant(f"learnt as pairs of rank {RANK}", Training(student=LowRank), Keep.PAIRS),
    "svd": Variant(f"the product's, kept as the best matrices of rank {RANK}", keep=Keep.PAIRS),
    "unrounded": Variant("the product's, kept as it is", keep=Keep.UNROUNDED),
}
