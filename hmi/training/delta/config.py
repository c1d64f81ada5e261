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

    Attributes:
        rank: Of every LoRA pair.
        steps: Of the optimizer.
        batch_size: Texts in one step.
        learning_rate: Peak of the schedule.
        nearness: Weight, in the loss, of the squared relative distance between the rows and those of the parent domain.
            Rows within the trees' tolerance are not stored again; at 1, rows of MiniLM with k = 3 moved half as far as
            at 0, for four fifths of the gain. 0 for the root's own delta, which has no parent.
        left_out: Share of the texts that get the n-grams of a tree built from all other texts, so that shorter n-grams
            are good replacements under the miss policy `backoff`.
        sites: The linear layers that get a pair, in every lower layer.
        estimator_steps: Of the optimizer, for the delta's own estimator. It begins with the base's, and there is none
            if the base has none.
        max_tokens: Longer texts are cut, special tokens included.
        seed: The same seed, text, machine and number of threads give the same weights.
        device, dtype: See `hmi.devices`. The dtype is that of the frozen base model and the activations;
            the trained weights are float32.

    Raises `InvalidInput` whose `param` names the field.
    """

    rank: int = 16
    steps: int = 300
    batch_size: int = 32
    learning_rate: float = 4e-3
    nearness: float = 1.0
    left_out: float = 0.5
    sites: tuple[Site, ...] = (Site.Q, Site.V, Site.FC1, Site.FC2)
    estimator_steps: int = 400
    max_tokens: int = 128
    seed: int = 0
    device: str = "cpu"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        least = dict.fromkeys(("rank", "steps", "batch_size", "estimator_steps", "max_tokens"), 1)
        require_numbers(self, least, positive=("learning_rate",), shares=("left_out",))
        if not 0 <= self.nearness < math.inf:
            raise InvalidInput(f"nearness must be a number from 0, not {self.nearness}", param="nearness")
        if not self.sites:
            raise InvalidInput("a delta needs at least one linear layer to sit on", param="sites")


@dataclass(frozen=True, slots=True)
class DeltaReport:
    """The outcome of a training.

    Attributes:
        texts: Trained on; `dev_texts` others measured the fidelity.
        before, after: Fidelity of the domain's rows without and with the delta. A delta whose `after.upper` is not
            below `before.upper` is not worth its tables.
        losses: Means over each tenth of the steps.
        estimate_error: `RowEstimator.error` on the dev texts; None without an estimator.
        seconds: From loading the base model to the end.
    """

    texts: int
    dev_texts: int
    before: Fidelity
    after: Fidelity
    losses: tuple[float, ...]
    estimate_error: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainedDelta:
    delta: Adapter
    report: DeltaReport
