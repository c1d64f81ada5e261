"""Shapes and conventions of a hierarchical PLM (hPLM): plain data that every package may import."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hmi.errors import Corrupt

__all__ = [
    "SPEC_FILE",
    "CountPolicy",
    "Family",
    "HPLMSpec",
    "MissPolicy",
    "Placement",
    "RowDtype",
    "Site",
    "TaskKind",
    "read_spec",
]

SPEC_FILE = "spec.json"

_SIZES = ("vocab_size", "hidden_size", "layers", "heads", "intermediate_size", "max_positions")
_KEY_IDS = 2**21 - 1  # an n-gram's key has 21 bits for each id + 1


class Family(StrEnum):
    """Model families. The family decides the window, the layers' maths and the tensor names."""

    BERT = "bert"
    GPT2 = "gpt2"
    LLAMA = "llama"

    @property
    def decodes(self) -> bool:
        """Whether it is a decoder: it generates, and a token's window ends with the token."""
        return self is not Family.BERT


class RowDtype(StrEnum):
    """How a row of the lower layers is stored: int8 with one float32 scale per row, or float16."""

    INT8 = "int8"
    FLOAT16 = "float16"


class CountPolicy(StrEnum):
    """Whether a tenant's lookups count towards what knowledge trees hold."""

    ALL = "all"
    NONE = "none"


class MissPolicy(StrEnum):
    """What happens to a window that the knowledge tree does not hold.

    `EXACT` computes its row, so that answers do not depend on the tree. `BACKOFF` runs no lower layers: it estimates
    the row from those of the window's tokens or, if the base model or the domain's delta has no estimator, takes the
    row of the longest shorter n-gram.
    """

    EXACT = "exact"
    BACKOFF = "backoff"


class TaskKind(StrEnum):
    """What is trained: one label per text, any number of labels, a label per word, embeddings, or generation."""

    CLASSIFICATION = "classification"
    MULTI_LABEL = "multi_label"
    TOKENS = "tokens"
    EMBEDDING = "embedding"
    LANGUAGE = "language"


class Site(StrEnum):
    """The linear layers of a transformer layer that a LoRA may sit on, in PEFT's sense of target.

    `GATE` is that of a gated feed-forward: fc2(activation(gate(x)) * fc1(x)).
    """

    Q = "q"
    K = "k"
    V = "v"
    O = "o"  # noqa: E741 - the field's own name
    FC1 = "fc1"
    FC2 = "fc2"
    GATE = "gate"


class Placement(StrEnum):
    """The two places of a bottleneck adapter: after attention's output, after the feed-forward's."""

    ATTENTION = "attention"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class HPLMSpec:
    """Shapes and conventions of one hPLM. Raises `ValueError` for sizes that no model can have."""

    family: Family
    vocab_size: int
    hidden_size: int
    layers: int  # all transformer layers, lower and upper together
    heads: int
    intermediate_size: int
    max_positions: int  # longest sequence in tokens, special tokens included
    type_vocab_size: int  # number of BERT's token types; 0 for decoders
    layer_norm_eps: float  # of every LayerNorm or RMSNorm
    activation: str
    pad_token_id: int
    k: int = 0  # number of lower layers, which see a 3-token window only; 0 is the ordinary model
    # How the lower layers' output is rounded, in tables and when computed on a miss, so that an answer does not depend
    # on where the row came from.
    row_dtype: RowDtype = RowDtype.INT8
    has_pooler: bool = True
    distilled: bool = False  # the layers were trained to work with windows and differ from the pretrained model's
    kv_heads: int | None = None  # heads of keys and values, shared by several query heads; None: as many as those
    head_size: int | None = None  # None: `hidden_size / heads`
    rope_theta: float | None = None  # base of rotary positions; None where positions are learned
    tied: bool = False  # a decoder's output embedding is its input's
    eos_token_ids: tuple[int, ...] = ()  # tokens that end a generated text
    estimator_size: int = 0  # hidden size of the network that estimates missing rows under `backoff`; 0: none

    def __post_init__(self) -> None:
        for name in _SIZES:
            # A bool is an int, and a float of a whole number equals one: neither is a size.
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a whole number from 1, not {getattr(self, name)!r}")
        if not 0 <= self.k < self.layers:
            raise ValueError(f"k must be in 0..{self.layers - 1}, not {self.k}")
        if self.k and self.vocab_size > _KEY_IDS:
            raise ValueError(f"with k > 0 the vocabulary may have {_KEY_IDS} ids, not {self.vocab_size}")
        if type(self.estimator_size) is not int or self.estimator_size < 0 or (self.estimator_size and not self.k):
            raise ValueError(f"estimator_size is {self.estimator_size!r} for k = {self.k}")
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id must be in 0..{self.vocab_size - 1}, not {self.pad_token_id}")
        if not 0 < self.layer_norm_eps < 1:
            raise ValueError(f"layer_norm_eps must lie between 0 and 1, not {self.layer_norm_eps}")
        if self.head_size is None and self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of {self.heads} heads")
        self._check_family()

    def _check_family(self) -> None:
        least_types = 0 if self.family.decodes else 1
        if type(self.type_vocab_size) is not int or self.type_vocab_size < least_types:
            raise ValueError(f"type_vocab_size must be a whole number from {least_types}, not {self.type_vocab_size!r}")
        for name in ("kv_heads", "head_size"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be a whole number from 1, not {value!r}")
        if self.heads % self.key_heads:
            raise ValueError(f"{self.heads} heads of queries cannot share {self.key_heads} of keys and values")
        if (self.rope_theta is not None) is not (self.family is Family.LLAMA):
            raise ValueError(f"rope_theta is {self.rope_theta} for the family {self.family}")
        if self.rope_theta is not None and not 1 < self.rope_theta < math.inf:
            raise ValueError(f"rope_theta must be a number above 1, not {self.rope_theta}")
        if not all(type(each) is int and 0 <= each < self.vocab_size for each in self.eos_token_ids):
            raise ValueError(f"eos_token_ids must be ids below {self.vocab_size}, not {list(self.eos_token_ids)}")

    @property
    def ordinary(self) -> HPLMSpec:
        """The spec of the same model without lookups."""
        return dataclasses.replace(self, k=0, estimator_size=0)

    @property
    def key_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_width(self) -> int:
        """Values of a query, key or value in each head."""
        return self.hidden_size // self.heads if self.head_size is None else self.head_size

    @property
    def sites(self) -> tuple[Site, ...]:
        """The linear layers of every transformer layer."""
        return tuple(site for site in Site if site is not Site.GATE or self.family is Family.LLAMA)

    def site_shape(self, site: Site) -> tuple[int, int]:
        """(in features, out features) of the linear layer at `site`, one of `sites`."""
        queries, keys = self.heads * self.head_width, self.key_heads * self.head_width
        shapes = {
            Site.Q: (self.hidden_size, queries),
            Site.K: (self.hidden_size, keys),
            Site.V: (self.hidden_size, keys),
            Site.O: (queries, self.hidden_size),
            Site.FC1: (self.hidden_size, self.intermediate_size),
            Site.FC2: (self.intermediate_size, self.hidden_size),
            Site.GATE: (self.hidden_size, self.intermediate_size),
        }
        return shapes[site]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> HPLMSpec:
        """Raises `Corrupt` if the text is not a spec that this version understands."""
        try:
            raw: dict[str, Any] = json.loads(text)
            raw["family"] = Family(raw["family"])
            raw["row_dtype"] = RowDtype(raw["row_dtype"])
            raw["eos_token_ids"] = tuple(raw.get("eos_token_ids", ()))
            return cls(**raw)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise Corrupt(f"not an hPLM spec: {error}") from error


def read_spec(folder: Path) -> HPLMSpec:
    """Read the spec of a base artifact. Raises `Corrupt`."""
    try:
        return HPLMSpec.from_json((folder / SPEC_FILE).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise Corrupt(f"{folder.name}: {SPEC_FILE} cannot be read: {error}") from error
