"""Base models that an engine has loaded: weights, tokenizer and published tree of each."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from tokenizers import Tokenizer

from hmi.engine.config import EngineConfig
from hmi.engine.vocabulary import TokenLengthBound, token_length_bound
from hmi.errors import HmiError
from hmi.knowledge.lookup import KnowledgeTree, MissCache
from hmi.models.families import ServedModel, load_served, load_tokenizer
from hmi.models.layers import PAGE_TOKENS, page_bytes
from hmi.models.text import ChatTemplate, load_chat
from hmi.spec import HPLMSpec

_log = logging.getLogger(__name__)


class ModelSource(Protocol):
    """Where an engine finds what a `ModelRef` names. Methods raise `HmiError`s and may block on I/O."""

    def base_folder(self, digest: str) -> Path:
        """The folder of a base artifact, on this machine's disk."""

    def adapter_file(self, digest: str) -> Path:
        """The canonical adapter file of an adapter artifact, on this machine's disk."""

    def tree(self, base: str) -> KnowledgeTree:
        """The published tree of a base model; an empty tree where none was published."""


@dataclass(eq=False)
class LoadedModel:
    digest: str  # of the base artifact
    model: ServedModel
    tokenizer: Tokenizer
    tree: KnowledgeTree  # replaced when another one is published; a batch reads it once
    miss_cache: MissCache  # rows that the tree lacked and batches computed
    chat: ChatTemplate | None  # where the base was taught to chat

    @property
    def spec(self) -> HPLMSpec:
        return self.model.spec

    @cached_property
    def token_length_bound(self) -> TokenLengthBound | None:
        return token_length_bound(self.tokenizer)


class LoadedModels:
    """Loads each base model once, at its first use, and keeps it. Thread-safe."""

    def __init__(self, source: ModelSource, device: torch.device, dtype: torch.dtype, config: EngineConfig) -> None:
        self._source = source
        self._device = device
        self._dtype = dtype
        self._config = config
        self._loaded: dict[str, LoadedModel] = {}
        self._lock = threading.Lock()

    def get(self, digest: str) -> LoadedModel:
        """Raises what loading raises; a failed load is tried again at the next use."""
        base = self._loaded.get(digest)
        if base is not None:
            return base
        with self._lock:
            if digest not in self._loaded:
                self._loaded[digest] = self._load(digest)
            return self._loaded[digest]

    def loaded(self) -> list[LoadedModel]:
        return list(self._loaded.values())

    def publish(self, digest: str, tree: KnowledgeTree) -> None:
        """Let batches formed from now on look up in `tree`."""
        base = self._loaded.get(digest)
        if base is not None:
            base.tree = tree

    def _load(self, digest: str) -> LoadedModel:
        folder = self._source.base_folder(digest)
        model = load_served(folder, self._device, self._dtype)
        tokenizer = load_tokenizer(folder)
        spec = model.spec
        try:
            tree = self._source.tree(digest)
        except HmiError as error:
            # A damaged tree costs speed and changes no answer: serve without it, and log it.
            _log.error("tree of base %s cannot be used, serving without it: %s", digest[:12], error)
            tree = KnowledgeTree(
                number=0, parents={}, tables={}, row_dtype=spec.row_dtype, hidden_size=spec.hidden_size
            )
        _log.info("loaded base %s: %s, k=%d, %s on %s", digest[:12], spec.family, spec.k, self._dtype, self._device)
        _warn_of_small_cache(digest[:12], spec, self._dtype, self._config.cache_bytes)
        # With k = 0 nothing is looked up, so there is nothing to keep.
        miss_cache = MissCache(self._config.miss_cache_bytes if spec.k else 0, spec.row_dtype, spec.hidden_size)
        return LoadedModel(digest, model, tokenizer, tree, miss_cache, load_chat(folder))


def _warn_of_small_cache(name: str, spec: HPLMSpec, dtype: torch.dtype, cache_bytes: int) -> None:
    """Log a warning where a decoder's keys and values have less room than one sequence of its whole context needs."""
    if not spec.family.decodes:
        return
    page = page_bytes(spec, dtype)
    tokens = cache_bytes // page * PAGE_TOKENS
    if tokens < spec.max_positions:
        _log.warning(
            "base %s: %d bytes for keys and values hold %d tokens of all sequences together, and one sequence may "
            "have %d: longer ones end early, as if they had reached their max_tokens; %d bytes hold a whole one",
            name,
            cache_bytes,
            tokens,
            spec.max_positions,
            math.ceil(spec.max_positions / PAGE_TOKENS) * page,
        )
