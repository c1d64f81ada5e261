"""How a domain delta is trained, and the outcome."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hmi.adapters import Adapter
from hmi.errors import InvalidInput
from hmi.spec import Site
from hmi.training.distill import Fidelity
from hmi.training.plan import require_numbers


@dataclass(frozen=True, slots=True)
class DeltaConfig:
    """How a delta is trained.

    Raises `InvalidInput` whose `param` names the field.
    """

    rank: int = 16  # of every LoRA pair
    steps: int = 300  # of the optimizer
    batch_size: int = 32  # texts in one step
    learning_rate: float = 4e-3  # peak of the schedule
    # Weight, in the loss, of the squared relative distance between the rows and those of the parent domain. Rows within
    # the trees' tolerance are not stored again; at 1, rows of MiniLM with k = 3 moved half as far as at 0, for four
    # fifths of the gain. 0 for the root's own delta, which has no parent.
    nearness: float = 1.0
    # Share of the texts that get the n-grams of a tree built from all other texts, so that shorter n-grams are good
    # replacements under the miss policy `backoff`.
    left_out: float = 0.5
    sites: tuple[Site, ...] = (Site.Q, Site.V, Site.FC1, Site.FC2)  # linear layers with a pair, in every lower layer
    estimator_steps: int = 400  # for the delta's own estimator, if the base has one, with which it begins
    max_tokens: int = 128  # longer texts are cut, special tokens included
    seed: int = 0  # with the same text, machine and number of threads it gives the same weights
    device: str = "cpu"  # see `hmi.devices`
    dtype: str = "auto"  # of the frozen base model and the activations; the trained weights are float32

    def __post_init__(self) -> None:
        least = dict.fromkeys(("rank", "steps", "batch_size", "estimator_steps", "max_tokens"), 1)
        require_numbers(self, least, positive=("learning_rate",), shares=("left_out",))
        if not 0 <= self.nearness < math.inf:
            raise InvalidInput(f"nearness must be a number from 0, not {self.nearness}", param="nearness")
        if not self.sites:
            raise InvalidInput("a delta needs at least one linear layer to sit on", param="sites")


@dataclass(frozen=True, slots=True)
class DeltaReport:
    """The outcome of a training."""

    texts: int  # trained on
    dev_texts: int  # others, which measured the fidelity
    # Fidelity of the domain's rows without and with the delta. A delta whose `after.upper` is not below `before.upper`
    # is not worth its tables.
    before: Fidelity
    after: Fidelity
    losses: tuple[float, ...]  # means over each tenth of the steps
    estimate_error: float | None  # `RowEstimator.error` on the dev texts; None without an estimator
    seconds: float  # from loading the base model to the end


@dataclass(frozen=True, slots=True)
class TrainedDelta:
    delta: Adapter
    report: DeltaReport
