"""Names of BERT's modules in the transformers library, and PEFT's way of selecting among them by name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from hmi.adapters.formats.config import ConfigClaims
from hmi.errors import AdapterRefused
from hmi.spec import Site

__all__ = ["MODULE_OF_SITE", "PREFIX", "ModulePattern", "bert_modules"]

PREFIX = "bert."
MODULE_OF_SITE = {
    Site.Q: "attention.self.query",
    Site.K: "attention.self.key",
    Site.V: "attention.self.value",
    Site.O: "attention.output.dense",
    Site.FC1: "intermediate.dense",
    Site.FC2: "output.dense",
}
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_NAME_LENGTH = 60  # characters of the longest module name, rounded up
_MAX_LENGTH = 300
_MAX_STEPS = 1_000_000
_COMPILING_STEPS = 1000  # what a pattern costs before it is matched, roughly


def bert_modules(layers: int, prefix: str) -> Iterator[tuple[int, Site, str]]:
    """Layer, site and full module name of every linear layer that a LoRA may sit on."""
    for layer in range(layers):
        for site, module in MODULE_OF_SITE.items():
            yield layer, site, f"{prefix}encoder.layer.{layer}.{module}"


class ModulePattern:
    """A regular expression over module names, from a stranger.

    Python's matcher backtracks, and some expressions keep it busy for years. So only those are taken whose
    worst case can be bounded: no repeated groups, no flags, and few enough quantifiers and alternatives.
    That is all that selecting modules needs. Raises `AdapterRefused` otherwise.

    Attributes:
        steps: A bound on the matcher's steps for one module name.
    """

    def __init__(self, config: ConfigClaims, field: str, text: str) -> None:
        self.steps = _bound_steps(text)
        if self.steps > _MAX_STEPS:
            raise config.refusal(field, text, "the pattern is too complicated; name the modules in a list instead")
        try:
            self._pattern = re.compile(text)
            self._ending = re.compile(rf"(.*\.)?({text})$")
        except (re.error, RecursionError, OverflowError) as error:
            raise AdapterRefused(f"{config.place}: {field}: {text!r} is not a regular expression: {error}") from error

    def selects(self, module: str) -> bool:
        """As PEFT reads a `target_modules` that is one text: the whole name matches."""
        return self._pattern.fullmatch(module) is not None

    def ends(self, module: str) -> bool:
        """As PEFT reads a key of `rank_pattern` and `alpha_pattern`: the name's end matches, from a dot on."""
        return self._ending.match(module) is not None

    @staticmethod
    def of_keys(config: ConfigClaims, field: str, keys: Iterable[str]) -> tuple[ModulePattern, ...]:
        """A pattern for each key; all of them together are bounded as one is."""
        patterns = tuple(ModulePattern(config, field, key) for key in keys)
        if sum(pattern.steps for pattern in patterns) > _MAX_STEPS:
            raise config.refusal(field, len(patterns), "these are too many patterns")
        return patterns


def _bound_steps(text: str) -> float:
    plain = _ESCAPED.sub("x", text).replace("(?:", "(")
    if len(text) > _MAX_LENGTH or "(?" in plain or re.search(r"\)[*+?{]", plain):
        return math.inf
    # Each quantifier may end anywhere in the name, each "|" may double the ways to match. One quantifier more
    # stands before every key of a pattern (see `ends`).
    quantifiers = 1 + sum(plain.count(sign) for sign in "*+?{")
    choices = plain.count("|")
    if quantifiers > 8 or choices > 32:
        return math.inf
    return _COMPILING_STEPS + float(_NAME_LENGTH) ** quantifiers / math.factorial(quantifiers) * 2.0**choices
