"""An engine's settings, and what their defaults of 0 stand for on this machine."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_MOST_DEVICE_THREADS = 8


@dataclass(frozen=True, slots=True)
class Overlap:
    """Which stages work while the device computes. All of them, except to measure what each is worth."""

    tokenise: bool = True  # beside the device stage; False makes the two alternate
    prefetch: bool = True  # adapters are read from disk when items are submitted; False when their batch is formed
    fetch: bool = True
    finish: bool = True


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Plain data; the worker fills it from its settings."""

    device: str = "auto"  # or `cpu`, `cuda:0`, ...
    dtype: str = "auto"  # or `float32`, `bfloat16`, `float16`: of weights, adapters and activations
    threads: int = 0  # CPU threads of all forwards together; 0 is all cores
    # Batches that are computed side by side, each with its share of `threads`; 0 is one for each thread, at most 8, on
    # a CPU, and one elsewhere. A forward on one core waits for no other core.
    device_threads: int = 0
    batch_tokens: int = 0  # most tokens in a batch, padding counted; 0 is 2,048 on a CPU and 16,384 elsewhere
    batch_rows: int = 256  # most sequences in a batch
    padding_share: float = 0.05  # a batch is cut before padding exceeds this share of its tokens
    batch_cost: int = 48  # of starting a batch, in tokens; batches are cut where this and padding are least
    host_adapter_bytes: int = 2 * 1024**3  # adapters in host memory
    device_adapter_bytes: int = 512 * 1024**2  # adapters on the device, allocated at once for each hidden size
    miss_cache_bytes: int = 64 * 1024**2  # computed rows in host memory, for each base model; 0 keeps none
    delta_bytes: int = 128 * 1024**2  # domain deltas on the device
    cache_bytes: int = 512 * 1024**2  # keys and values, for each decoder, allocated with its first sequence
    generated_rows: int = 64  # sequences of one decoder that are generated at once
    frequency_max_keys: int = 2_000_000  # distinct n-grams counted per domain between two flushes
    frequency_total_keys: int = 4_000_000  # of all domains and base models together
    queue_batches: int = 2  # batches that may wait between two stages
    overlap: Overlap = Overlap()  # for measurements


def resolve_device_threads(device_threads: int, threads: int, device: torch.device) -> int:
    """How many batches are computed side by side."""
    if device_threads:
        return device_threads
    return min(threads, _MOST_DEVICE_THREADS) if device.type == "cpu" else 1


def resolve_batch_tokens(tokens: int, device: torch.device) -> int:
    """The token budget of a batch."""
    return tokens or (2048 if device.type == "cpu" else 16_384)
