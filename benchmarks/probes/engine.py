"""One engine that does nothing else, probed with sentences and with batches."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.probes.separation import Seconds, Separation, percentiles
from benchmarks.serving import Server, results
from hmi.bench import fill_tree
from hmi.engine import EngineConfig
from hmi.items import Embedding, Item, ModelRef, Task
from hmi.knowledge import unigrams, union, window_keys
from hmi.models.families import load_tokenizer

CLASSES = TABLE, KEPT, UNKNOWN = "table", "kept", "unknown"
FRAME, PAIR = 6, (2, 4)  # words of a sentence, and which of them differ in `pair`
BATCH = 64


class Prober:
    """One engine, its base model, and sentences that no probe has used."""

    def __init__(self, folder: Path, base: Path, probes: int, config: EngineConfig) -> None:
        self._rng = np.random.default_rng(0)
        tokenizer = load_tokenizer(base)
        self._words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha())
        self._frame = self._draw(FRAME)
        self.server = Server(base, config)
        self._ref = ModelRef(base.name, "general", None)
        known = [self.sentence(form) for form in ("sentence", "pair") for _ in range(probes)] + [" ".join(self._frame)]
        encoded = tokenizer.encode_batch_fast(known)
        windows = window_keys(np.concatenate([each.ids for each in encoded]), np.array([len(e) for e in encoded]))
        keys = union([np.unique(windows), unigrams(self.server.spec.vocab_size)])
        self.server.publish(fill_tree(folder / f"{base.name}-tree", base, keys))
        self._known = {"sentence": known[:probes], "pair": known[probes:-1]}

    def sentence(self, form: str) -> str:
        if form == "sentence":
            return " ".join(self._draw(FRAME))
        return " ".join([*self._frame[: PAIR[0]], *self._draw(2), *self._frame[PAIR[1] :]])

    def time(self, texts: Sequence[str]) -> float:
        items = [Item(self._ref, Task.EMBED, text=text) for text in texts]
        begin = time.perf_counter()
        results(self.server.engine, items, Embedding)
        return time.perf_counter() - begin

    def probe(self, form: str, probes: int) -> dict[str, Seconds]:
        """Times of as many probes in all, by class."""
        times: dict[str, list[float]] = {name: [] for name in CLASSES}
        for name in self._rng.permutation(np.resize(CLASSES, probes)):
            text = self._known[form].pop() if name == TABLE else self.sentence(form)
            self.time([text if name == KEPT else self.sentence(form)])
            times[name].append(self.time([text]))
        return {name: np.array(each) for name, each in times.items()}

    def probe_batches(self, batches: int) -> dict[str, Seconds]:
        """Times of so many batches each of which none, one or all sentences are kept."""
        times: dict[str, list[float]] = {"none": [], "one": [], "all": []}
        for name in self._rng.permutation(np.repeat(list(times), batches)):
            texts = [self.sentence("sentence") for _ in range(BATCH)]
            asked = {"none": 0, "one": 1, "all": BATCH}[name]
            self.time([*texts[:asked], *(self.sentence("sentence") for _ in range(BATCH - asked))])
            times[name].append(self.time(self._rng.permutation(texts).tolist()))
        return {name: np.array(each) for name, each in times.items()}

    def _draw(self, count: int) -> list[str]:
        return [str(word) for word in self._rng.choice(self._words, count)]


def measure_engine(prober: Prober, probes: int, batches: int) -> dict[str, Any]:
    prober.time([prober.sentence("sentence") for _ in range(BATCH)])
    report: dict[str, Any] = {}
    gc.disable()
    try:
        for form in ("sentence", "pair"):
            times = prober.probe(form, probes)
            separation = Separation.of(times[KEPT], times[UNKNOWN])
            report[form] = {
                "ms": {name: percentiles(each) for name, each in times.items()},
                "kept_or_unknown": asdict(separation),
                "table_or_unknown": asdict(Separation.of(times[TABLE], times[UNKNOWN])),
            }
        batched = prober.probe_batches(batches)
    finally:
        gc.enable()
    report["batch"] = {
        "ms": {name: percentiles(each) for name, each in batched.items()},
        "one_or_none": asdict(Separation.of(batched["one"], batched["none"])),
        "all_or_none": asdict(Separation.of(batched["all"], batched["none"])),
    }
    return report
