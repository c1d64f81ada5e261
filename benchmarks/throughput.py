"""Sequences per second of the whole engine beside transformers' plain forward of the same sequences.

    python -m benchmarks.throughput [--quick] [--json] [--device cuda] [--dtype bfloat16]

Weights and token ids are random in the shape of MiniLM-L6 (or `--shape base`, BERT-base). Every engine
gets the same sequences; rounds alternate, and a figure is the median of its rounds. HMI is counted from token ids
submitted to outcomes received, with the tenants' adapters in use; `full_model` is the forward of the base
model alone over the same length-cut batches, which no tenant's answer comes from: it is a ceiling for
whoever runs the full model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import BertConfig, BertModel

from benchmarks.tenants_on_disk import FolderSource, random_adapters
from hmi.engine.config import EngineConfig, resolve_device, resolve_dtype
from hmi.engine.engine import Engine
from hmi.engine.request import Item, ModelRef, Task
from hmi.engine.scheduler import BatchLimits, Entry, cut_batches
from hmi.knowledge.ngrams import unigrams, window_keys
from hmi.knowledge.rows import encode
from hmi.knowledge.table import Table, TableMeta, write_table
from hmi.knowledge.tree import KnowledgeTree
from hmi.models.loader import convert_pretrained, load_spec

SHAPES = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
VOCABULARY = 2_000


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    sequences = _sequences(options.sequences)
    with tempfile.TemporaryDirectory() as name:
        runs, engine = _prepare(Path(name), options, sequences, device, dtype)
        try:
            seconds = _alternate(runs, options.rounds)
        finally:
            engine.close()
    rates = {label: len(sequences) / statistics.median(times) for label, times in seconds.items()}
    report = {
        "shape": options.shape,
        "layers": SHAPES[options.shape]["num_hidden_layers"],
        "k": options.k,
        "sequences": len(sequences),
        "mean_tokens": round(statistics.fmean(map(len, sequences)), 1),
        "tenants": options.tenants,
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "seq_s": {label: round(rate, 1) for label, rate in rates.items()},
        "ratio_vs_full_model": {
            label: round(rate / rates["full_model"], 3) for label, rate in rates.items() if label != "full_model"
        },
    }
    print(json.dumps(report, indent=1) if options.json else _as_text(report))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--k", type=int, default=2, help="lower layers that are looked up")
    parser.add_argument("--tenants", type=int, default=32)
    parser.add_argument("--sequences", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quick", action="store_true", help="fewer sequences and rounds: under a minute")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    if options.quick:
        options.sequences, options.rounds = 256, 3
    return options


def _sequences(count: int) -> list[tuple[int, ...]]:
    """Lengths like those of short reviews: 8 to 64 tokens."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.gamma(4, 7, count), 8, 64).astype(int)
    return [tuple(rng.integers(5, VOCABULARY, length).tolist()) for length in lengths]


def _prepare(
    root: Path, options: argparse.Namespace, sequences: list[tuple[int, ...]], device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, Callable[[], None]], Engine]:
    torch.manual_seed(0)
    config: BertConfig = BertConfig.from_dict({"vocab_size": VOCABULARY, **SHAPES[options.shape]})
    full = BertModel(config)
    full.save_pretrained(root / "plm")
    torch.nn.Module.to(full, device, dtype).train(mode=False)  # transformers' own signature hides these
    Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]")).save(str(root / "plm" / "tokenizer.json"))  # noqa: S106
    source = FolderSource({"k0": root / "k0", "kn": root / "kn"})
    convert_pretrained(root / "plm", root / "k0")
    convert_pretrained(root / "plm", root / "kn", k=options.k)
    for base, folder in source.bases.items():
        source.adapters |= random_adapters(load_spec(folder), root / "adapters", base, options.tenants)
    engine = Engine(EngineConfig(device=options.device, dtype=options.dtype), source)
    engine.load_base("k0")
    engine.load_base("kn")
    empty = source.tree("kn")
    whole = _tree_of(engine, sequences, root / "table", source)

    def run(base: str, tree: KnowledgeTree | None = None) -> None:
        if tree is not None:
            engine.publish_tree(base, tree)
        items = [
            Item(ModelRef(base, "general", f"{base}-{number % options.tenants}"), Task.CLASSIFY, tokens=ids)
            for number, ids in enumerate(sequences)
        ]
        for outcome in engine.submit(items).result():
            if outcome.error is not None:
                raise outcome.error

    return {
        "full_model": lambda: _forward(full, sequences),
        "hmi_k0": lambda: run("k0"),
        f"hmi_k{options.k}_all_hits": lambda: run("kn", whole),
        f"hmi_k{options.k}_no_tree": lambda: run("kn", empty),
    }, engine


def _tree_of(engine: Engine, sequences: list[tuple[int, ...]], folder: Path, source: FolderSource) -> KnowledgeTree:
    """A tree that holds every window of the sequences."""
    spec = load_spec(source.bases["kn"])
    lengths = np.array([len(ids) for ids in sequences])
    windows = window_keys(np.concatenate([np.array(ids) for ids in sequences]), lengths)
    keys = np.unique(np.concatenate([windows, unigrams(spec.vocab_size)]))
    meta = TableMeta("general", "benchmark", spec.row_dtype, spec.hidden_size, len(keys))
    write_table(folder, meta, keys, encode(engine.compute_rows("kn", keys), spec.row_dtype))
    return KnowledgeTree(1, {"general": None}, {"general": Table.open(folder)}, spec.row_dtype, spec.hidden_size)


@torch.inference_mode()
def _forward(model: BertModel, sequences: list[tuple[int, ...]]) -> None:
    entries = [Entry(len(ids), "", ids) for ids in sequences]
    for batch in cut_batches(entries, BatchLimits(tokens=4096, rows=64, padding_share=0.05)):
        width = batch[0].length
        ids = torch.tensor([[*entry.payload, *[0] * (width - entry.length)] for entry in batch])
        mask = torch.tensor([[1] * entry.length + [0] * (width - entry.length) for entry in batch])
        model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).last_hidden_state.float().cpu()


def _alternate(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run, by turns, after one round that is not counted."""
    seconds: dict[str, list[float]] = {label: [] for label in runs}
    for turn in range(rounds + 1):
        for label, run in runs.items():
            begin = time.perf_counter()
            run()
            if turn:
                seconds[label].append(time.perf_counter() - begin)
    return seconds


def _as_text(report: dict[str, object]) -> str:
    rates, ratios = report["seq_s"], report["ratio_vs_full_model"]
    if not isinstance(rates, dict) or not isinstance(ratios, dict):
        raise TypeError("a report without rates")
    lines = [f"{key}: {value}" for key, value in report.items() if not isinstance(value, dict)]
    lines += [f"{label:>18}  {rate:>9} seq/s  x{ratios.get(label, 1.0)}" for label, rate in rates.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
