"""What all benchmarks share: alternating rounds, the two limits of the machine, versions.

A figure is the median of its rounds. Rounds of what is compared alternate in one run, and each turn begins with
another one, so that a machine that slows down or gets busy does so for all of them.
"""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from hmi.bench import Shape
from hmi.models.layers import make_dense


def alternate(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run each `rounds` times in alternation and return its figures."""
    labels = list(runs)
    found: dict[str, list[float]] = {label: [] for label in labels}
    for turn in range(rounds):
        first = turn % len(labels) if labels else 0
        for label in [*labels[first:], *labels[:first]]:
            found[label].append(runs[label]())
    return found


class GemmMeter:
    """This machine's rate of matrix products, the upper limit of any forward: measured a little in every round.

    Products of the shape's own sizes and a large square one; each as `mm` into memory that is there already, with
    the weight in both orders, and as the linear layer that the engine serves with. The rate is that of the best.
    """

    def __init__(
        self, shape: Shape, tokens: int, device: torch.device, dtype: torch.dtype, *, square: int = 4096
    ) -> None:
        self._device = device
        self._products: list[Callable[[], object]] = []
        self._flops: list[int] = []
        self._seconds: list[list[float]] = []
        hidden, inner = shape.hidden_size, shape.intermediate_size
        for rows, inputs, outputs in (
            (tokens, hidden, hidden),
            (tokens, hidden, 3 * hidden),
            (tokens, hidden, inner),
            (tokens, inner, hidden),
            (square, square, square),
        ):
            x = torch.randn(rows, inputs, device=device).to(dtype)
            weight = torch.randn(outputs, inputs, device=device).to(dtype)
            products = _products(x, weight)
            self._products += products
            self._flops += [2 * rows * inputs * outputs] * len(products)
            self._seconds += [[] for _ in products]

    @torch.inference_mode()
    def measure(self, repeats: int = 3) -> float:
        """Run each product, after once that is not counted; seconds in all."""
        begin = time.perf_counter()
        for product, seconds in zip(self._products, self._seconds, strict=True):
            product()
            seconds += [_timed(product, self._device) for _ in range(repeats)]
        return time.perf_counter() - begin

    @property
    def flops_per_second(self) -> float:
        """Of the product with the best median."""
        return max(
            flops / statistics.median(seconds) for flops, seconds in zip(self._flops, self._seconds, strict=True)
        )


@torch.inference_mode()
def _products(x: torch.Tensor, weight: torch.Tensor) -> list[Callable[[], object]]:
    out = x.new_empty(len(x), len(weight))
    straight, turned = weight.t().contiguous(), weight.t()
    dense = make_dense(weight, torch.zeros_like(weight[:, 0]))
    return [lambda: torch.mm(x, straight, out=out), lambda: torch.mm(x, turned, out=out), lambda: dense(x)]


@torch.inference_mode()
def measure_memory_rate(device: torch.device, repeats: int = 5) -> float:
    """Bytes read and written per second by a copy that no cache holds; the other limit."""
    source = torch.zeros(256 * 1024**2, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    seconds = [_timed(lambda: target.copy_(source), device) for _ in range(repeats)]
    return 2 * source.numel() / statistics.median(seconds)


def _timed(run: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    begin = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - begin


def synchronise(device: torch.device) -> None:
    """Wait for a GPU's work; a CPU has done it already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> dict[str, object]:
    """What the figures were measured on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "processor": _processor(),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def versions(*packages: str) -> dict[str, str | None]:
    """Installed releases; None for a package that is not here."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found
