"""How a domain delta is trained, how far a training is, and what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hmi.adapters import Adapter
from hmi.errors import InvalidInput
from hmi.spec import Site
from hmi.training.distill import Fidelity

__all__ = ["DeltaConfig", "DeltaReport", "TrainedDelta"]


@dataclass(frozen=True, slots=True)
class DeltaConfig:
    """How a delta is trained.

    Attributes:
        rank: Of every LoRA pair.
        steps: Of the optimiser; text is passed over as often as that takes.
        batch_size: Texts in one step.
        learning_rate: Peak of the schedule.
        nearness: Weight, in the loss, of the squared relative distance between the rows and those of the domain
            above. What stays within the trees' tolerance is not stored again; at 1, rows of MiniLM with k = 3 went
            half as far as at 0, for four fifths of the gain. 0 for the root's own delta: it has nothing to inherit.
        left_out: Share of the texts that are seen as a tree sees them that was built of all the others, so that rows of
            shorter n-grams are good stand-ins under the miss policy `backoff`.
        sites: The linear layers that get a pair, in every lower layer.
        estimator_steps: Of the optimiser, for the delta's own estimator; it begins with the base's, and there is none
            where the base has none.
        max_tokens: Longer texts are cut, special tokens included.
        seed: Same seed, same text, same machine, same number of threads: same weights.
        device, dtype: As in `hmi.engine.config.EngineConfig`. The dtype is that of the frozen base model and the
            activations; the trained weights are float32 always.

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
        for name in ("rank", "steps", "batch_size", "estimator_steps", "max_tokens"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be at least 1, not {getattr(self, name)}", param=name)
        if not 0 < self.learning_rate < math.inf:
            raise InvalidInput(
                f"learning_rate must be a number above 0, not {self.learning_rate}", param="learning_rate"
            )
        if not 0 <= self.nearness < math.inf:
            raise InvalidInput(f"nearness must be a number from 0, not {self.nearness}", param="nearness")
        if not 0 <= self.left_out <= 1:
            raise InvalidInput(f"left_out must be a share from 0 to 1, not {self.left_out}", param="left_out")
        if not self.sites:
            raise InvalidInput("a delta needs at least one linear layer to sit on", param="sites")


@dataclass(frozen=True, slots=True)
class DeltaReport:
    """What came of a training.

    Attributes:
        texts: Learnt from; `judges` others measured the fidelity.
        before, after: Of the rows that the domain would have without the delta, and of the delta's, on the judging
            texts. A delta whose `after.upper` is not below `before.upper` is not worth its tables.
        losses: Means over each tenth of the steps.
        estimate_error: Of the judging texts' rows that were not learnt from, see `RowEstimator.error`; None where there
            is no estimator.
        seconds: From loading the base model to the end.
    """

    texts: int
    judges: int
    before: Fidelity
    after: Fidelity
    losses: tuple[float, ...]
    estimate_error: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainedDelta:
    delta: Adapter
    report: DeltaReport
