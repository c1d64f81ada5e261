"""What a hierarchical PLM looks like: plain data that every room may know."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hmi.errors import Corrupt

__all__ = ["Family", "HPLMSpec", "MissPolicy", "Placement", "RowDtype", "Site"]

_SIZES = (
    "vocab_size",
    "hidden_size",
    "layers",
    "heads",
    "intermediate_size",
    "max_positions",
    "type_vocab_size",
)
_KEY_IDS = 2**21 - 1  # an n-gram's key has 21 bits for each id + 1


class Family(StrEnum):
    """Model families. The family decides the window, the layers' maths and the tensor names."""

    BERT = "bert"


class RowDtype(StrEnum):
    """How a row of the lower layers is stored: int8 with one float32 scale per row, or float16."""

    INT8 = "int8"
    FLOAT16 = "float16"


class MissPolicy(StrEnum):
    """What a window that the knowledge tree does not hold gets.

    `EXACT` computes it, so that answers do not depend on the tree. `BACKOFF` takes the best shorter
    n-gram of the tree and computes nothing.
    """

    EXACT = "exact"
    BACKOFF = "backoff"


class Site(StrEnum):
    """The linear layers of a transformer layer that a LoRA may sit on, in PEFT's sense of target."""

    Q = "q"
    K = "k"
    V = "v"
    O = "o"  # noqa: E741 - the field's own name
    FC1 = "fc1"
    FC2 = "fc2"


class Placement(StrEnum):
    """The two places of a bottleneck adapter: after attention's output, after the feed-forward's."""

    ATTENTION = "attention"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class HPLMSpec:
    """Shapes and conventions of one hPLM. Raises `ValueError` for sizes that no model can have.

    Attributes:
        layers: All transformer layers, lower and upper together.
        k: How many of them see a 3-token window only. 0 is the ordinary model.
        row_dtype: How the lower layers' output is rounded, in tables and when computed on a miss,
            so that an answer does not depend on which of the two gave the row.
        max_positions: Longest sequence in tokens, special tokens included.
        distilled: The layers were trained to work with windows: they are not the pretrained model's any more.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    max_positions: int
    type_vocab_size: int
    layer_norm_eps: float
    activation: str
    pad_token_id: int
    k: int = 0
    row_dtype: RowDtype = RowDtype.INT8
    has_pooler: bool = True
    distilled: bool = False

    def __post_init__(self) -> None:
        for name in _SIZES:
            # A bool is an int, and a float of a whole number equals one: neither is a size.
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a whole number from 1, not {getattr(self, name)!r}")
        if not 0 <= self.k < self.layers:
            raise ValueError(f"k must be in 0..{self.layers - 1}, not {self.k}")
        if self.k and self.vocab_size > _KEY_IDS:
            raise ValueError(f"with k > 0 the vocabulary may have {_KEY_IDS} ids, not {self.vocab_size}")
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id must be in 0..{self.vocab_size - 1}, not {self.pad_token_id}")
        if not 0 < self.layer_norm_eps < 1:
            raise ValueError(f"layer_norm_eps must lie between 0 and 1, not {self.layer_norm_eps}")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of {self.heads} heads")

    def site_shape(self, site: Site) -> tuple[int, int]:
        """(in features, out features) of the linear layer at `site`."""
        if site is Site.FC1:
            return self.hidden_size, self.intermediate_size
        if site is Site.FC2:
            return self.intermediate_size, self.hidden_size
        return self.hidden_size, self.hidden_size

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> HPLMSpec:
        """Raises `Corrupt` where the text is not a spec that this version understands."""
        try:
            raw: dict[str, Any] = json.loads(text)
            raw["family"] = Family(raw["family"])
            raw["row_dtype"] = RowDtype(raw["row_dtype"])
            return cls(**raw)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise Corrupt(f"not an hPLM spec: {error}") from error
