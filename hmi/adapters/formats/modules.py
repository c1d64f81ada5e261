"""The families' module names in the transformers library, and PEFT's patterns over them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping

from hmi.adapters.formats.config import ConfigReader
from hmi.errors import AdapterRefused
from hmi.spec import Family, HPLMSpec, Site

PREFIXES: Mapping[Family, str] = {Family.BERT: "bert.", Family.GPT2: "transformer.", Family.LLAMA: "model."}
"""The prefix of module names where the model has a head."""
LAYERS_PATTERNS: Mapping[Family, tuple[str, ...]] = {
    Family.BERT: ("layer", "encoder.layer", "bert.encoder.layer"),
    Family.GPT2: ("h", "transformer.h"),
    Family.LLAMA: ("layers", "model.layers"),
}
"""Accepted names of the layers in PEFT's `layers_pattern`."""
_LAYERS: Mapping[Family, str] = {Family.BERT: "encoder.layer", Family.GPT2: "h", Family.LLAMA: "layers"}
MODULES: Mapping[Family, Mapping[str, tuple[Site, ...]]] = {
    Family.BERT: {
        "attention.self.query": (Site.Q,),
        "attention.self.key": (Site.K,),
        "attention.self.value": (Site.V,),
        "attention.output.dense": (Site.O,),
        "intermediate.dense": (Site.FC1,),
        "output.dense": (Site.FC2,),
    },
    Family.GPT2: {
        "attn.c_attn": (Site.Q, Site.K, Site.V),
        "attn.c_proj": (Site.O,),
        "mlp.c_fc": (Site.FC1,),
        "mlp.c_proj": (Site.FC2,),
    },
    Family.LLAMA: {
        "self_attn.q_proj": (Site.Q,),
        "self_attn.k_proj": (Site.K,),
        "self_attn.v_proj": (Site.V,),
        "self_attn.o_proj": (Site.O,),
        "mlp.up_proj": (Site.FC1,),
        "mlp.down_proj": (Site.FC2,),
        "mlp.gate_proj": (Site.GATE,),
    },
}
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_NAME_LENGTH = 60  # characters of the longest module name, rounded up
_MAX_LENGTH = 300
_MAX_STEPS = 1_000_000
_COMPILING_STEPS = 1000  # the cost of compiling a pattern, roughly


def linear_modules(spec: HPLMSpec, prefix: str) -> Iterator[tuple[int, tuple[Site, ...], str]]:
    """Yield layer, sites (several of a fused layer) and full name of every linear layer that takes a LoRA."""
    for layer in range(spec.layers):
        for module, sites in MODULES[spec.family].items():
            yield layer, sites, f"{prefix}{_LAYERS[spec.family]}.{layer}.{module}"


class ModulePattern:
    """A regular expression over module names, from an upload.

    Python's matcher backtracks, and some expressions take exponential time. So only expressions with a bounded worst
    case are accepted: no repeated groups, no flags, and few quantifiers and alternatives. Raises `AdapterRefused` for
    others. `steps` bounds the matcher's steps for one module name.
    """

    def __init__(self, config: ConfigReader, field: str, text: str) -> None:
        self.steps = _bound_steps(text)
        if self.steps > _MAX_STEPS:
            raise config.refusal(field, text, "the pattern is too complicated; name the modules in a list instead")
        try:
            self._pattern = re.compile(text)
            self._ending = re.compile(rf"(.*\.)?({text})$")
        except (re.error, RecursionError, OverflowError) as error:
            raise AdapterRefused(f"{config.place}: {field}: {text!r} is not a regular expression: {error}") from error

    def selects(self, module: str) -> bool:
        """Match as PEFT does for a `target_modules` that is one text: the whole name."""
        return self._pattern.fullmatch(module) is not None

    def ends(self, module: str) -> bool:
        """Match as PEFT does for a key of `rank_pattern` and `alpha_pattern`: the name's end, from a dot on."""
        return self._ending.match(module) is not None

    @staticmethod
    def of_keys(config: ConfigReader, field: str, keys: Iterable[str]) -> tuple[ModulePattern, ...]:
        """Return a pattern for each key; their bounds are added up."""
        patterns = tuple(ModulePattern(config, field, key) for key in keys)
        if sum(pattern.steps for pattern in patterns) > _MAX_STEPS:
            raise config.refusal(field, len(patterns), "these are too many patterns")
        return patterns


def _bound_steps(text: str) -> float:
    plain = _ESCAPED.sub("x", text).replace("(?:", "(")
    if len(text) > _MAX_LENGTH or "(?" in plain or re.search(r"\)[*+?{]", plain):
        return math.inf
    # Each quantifier may end anywhere in the name, each "|" may double the ways to match. `ends` adds a quantifier.
    quantifiers = 1 + sum(plain.count(sign) for sign in "*+?{")
    choices = plain.count("|")
    if quantifiers > 8 or choices > 32:
        return math.inf
    return _COMPILING_STEPS + float(_NAME_LENGTH) ** quantifiers / math.factorial(quantifiers) * 2.0**choices
