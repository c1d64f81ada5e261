"""Base models that an engine has loaded: weights, tokenizer and the published tree of each."""

from __future__ import annotations

import functools
import logging
import threading
from pathlib import Path
from typing import Protocol

import torch
from tokenizers import Tokenizer

from hmi.engine.config import warn_of_small_cache
from hmi.engine.extent import TokenLengthBound, token_length_bound
from hmi.errors import HmiError
from hmi.knowledge.lookup import KnowledgeTree, MissCache
from hmi.models.families import ServedModel, load_served, load_tokenizer
from hmi.models.text import ChatTemplate, load_chat

__all__ = ["LoadedModel", "LoadedModels", "ModelSource"]

_log = logging.getLogger(__name__)


class ModelSource(Protocol):
    """Where an engine finds what a `ModelRef` names. Methods raise `HmiError`s and may block on I/O."""

    def base_folder(self, digest: str) -> Path:
        """The folder of a base artifact, on this machine's disk."""

    def adapter_file(self, digest: str) -> Path:
        """The canonical adapter file of an adapter artifact, on this machine's disk."""

    def tree(self, base: str) -> KnowledgeTree:
        """The published tree of a base model; an empty tree where none was published."""


class LoadedModel:
    """One loaded base model. `tree` may be replaced at any time; a batch reads it once and keeps it.

    `miss_cache` holds rows that the tree lacked and batches computed.
    """

    def __init__(
        self,
        digest: str,
        model: ServedModel,
        tokenizer: Tokenizer,
        tree: KnowledgeTree,
        miss_cache: MissCache,
        chat: ChatTemplate | None = None,
    ) -> None:
        self.digest = digest
        self.spec = model.spec
        self.model = model
        self.tokenizer = tokenizer
        self.tree = tree
        self.miss_cache = miss_cache
        self.chat = chat

    @functools.cached_property
    def extent(self) -> TokenLengthBound | None:
        """Of its tokenizer."""
        return token_length_bound(self.tokenizer)


class LoadedModels:
    """Loads each base model once, at its first use, and keeps it.

    Args:
        miss_cache_bytes: For each base model, of rows computed for misses in host memory.
        cache_bytes: For each decoder, of keys and values; only looked at here.
    """

    def __init__(
        self,
        source: ModelSource,
        device: torch.device,
        dtype: torch.dtype,
        miss_cache_bytes: int,
        cache_bytes: int,
    ) -> None:
        self._source = source
        self._miss_cache_bytes = miss_cache_bytes
        self._cache_bytes = cache_bytes
        self._device = device
        self._dtype = dtype
        self._hosted: dict[str, LoadedModel] = {}
        self._lock = threading.Lock()

    def get(self, digest: str) -> LoadedModel:
        """Raises what loading raises; a failed load is tried again at the next use."""
        hosted = self._hosted.get(digest)
        if hosted is not None:
            return hosted
        with self._lock:
            if digest not in self._hosted:
                self._hosted[digest] = self._load(digest)
            return self._hosted[digest]

    def loaded(self) -> list[LoadedModel]:
        return list(self._hosted.values())

    def publish(self, digest: str, tree: KnowledgeTree) -> None:
        """Let batches formed from now on look up in `tree`."""
        hosted = self._hosted.get(digest)
        if hosted is not None:
            hosted.tree = tree

    def _load(self, digest: str) -> LoadedModel:
        folder = self._source.base_folder(digest)
        model = load_served(folder, self._device, self._dtype)
        tokenizer = load_tokenizer(folder)
        try:
            tree = self._source.tree(digest)
        except HmiError as error:
            # A damaged tree costs speed, never answers: serve without it and say so.
            _log.error("tree of base %s cannot be used, serving without it: %s", digest[:12], error)
            tree = KnowledgeTree(
                number=0, parents={}, tables={}, row_dtype=model.spec.row_dtype, hidden_size=model.spec.hidden_size
            )
        _log.info(
            "loaded base %s: %s, k=%d, %s on %s",
            digest[:12],
            model.spec.family,
            model.spec.k,
            self._dtype,
            self._device,
        )
        spec = model.spec
        warn_of_small_cache(digest[:12], spec, self._dtype, self._cache_bytes)
        # With k = 0 nothing is looked up, and nothing needs to be kept.
        miss_cache = MissCache(self._miss_cache_bytes if spec.k else 0, spec.row_dtype, spec.hidden_size)
        return LoadedModel(digest, model, tokenizer, tree, miss_cache, load_chat(folder))
