"""HMI's own adapter file: `adapter.safetensors`, with everything that is not a tensor in its metadata.

Tensors are float32 under the names of `Adapter.tensors`. The metadata's entry `hmi` is JSON; it repeats the tensors'
names, so that a file which lost a tensor is refused.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from hmi.adapters import Activation, Adapter, AdapterKind, Bottleneck, Estimator, Head, Lora, Pooling, Transform
from hmi.adapters.formats.tensors import MAX_BYTES, TensorFile, TensorReader, read_tensors
from hmi.errors import AdapterRefused
from hmi.spec import Placement, Site

FILE_NAME = "adapter.safetensors"
METADATA_KEY = "hmi"
_FORMAT = 1
_LORA = re.compile(r"^lora\.(0|[1-9][0-9]{0,3})\.([a-z0-9]+)\.[ab]$", re.ASCII)
_BOTTLENECK = re.compile(r"^bottleneck\.(0|[1-9][0-9]{0,3})\.([a-z]+)\.(?:down|up)(?:_bias)?$", re.ASCII)


def save_adapter(adapter: Adapter, path: Path) -> None:
    """Write the canonical file; equal adapters give equal bytes."""
    tensors = adapter.tensors()
    head = adapter.head
    config: dict[str, Any] = {
        "format": _FORMAT,
        "kind": adapter.kind.value,
        "adapter_before_norm": adapter.adapter_before_norm,
        "activation": adapter.activation.value,
        "tensors": sorted(tensors),
        "head": head
        and {
            "pooling": head.pooling.value,
            "transform": head.transform.value,
            "activation": head.activation.value,
            "labels": list(head.labels),
            "multi_label": head.multi_label,
        },
    }
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
    safetensors.numpy.save_file(arrays, path, metadata={METADATA_KEY: json.dumps(config, sort_keys=True)})


def load_adapter(path: Path, *, max_bytes: int = MAX_BYTES) -> Adapter:
    """Read the file. Raises `AdapterRefused`. `Adapter.validate` checks whether it fits a model."""
    return decode_adapter(read_tensors(path, max_bytes=max_bytes))


def decode_adapter(file: TensorFile) -> Adapter:
    """As `load_adapter`, for a file that was read already."""
    text = file.metadata.get(METADATA_KEY)
    if text is None:
        raise AdapterRefused(f"{file.name} is not an HMI adapter: its metadata has no entry {METADATA_KEY!r}")
    try:
        return _decode(file, json.loads(text))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise AdapterRefused(f"{file.name}: its {METADATA_KEY!r} entry is not understood: {error!r}") from error


def _decode(file: TensorFile, config: dict[str, Any]) -> Adapter:
    fields = {"format", "kind", "adapter_before_norm", "activation", "tensors", "head"}
    if set(config) != fields:
        raise ValueError(f"its fields are {sorted(config)}, expected {sorted(fields)}")
    if config["format"] != _FORMAT:
        raise AdapterRefused(f"{file.name}: format {config['format']} is unknown, this version reads {_FORMAT}")
    if sorted(file.tensors) != config["tensors"]:
        differing = sorted(set(file.tensors) ^ set(config["tensors"]))
        raise AdapterRefused(f"{file.name}: tensors and their list disagree about {', '.join(differing[:5])}")
    reader = TensorReader(file)
    lora = {}
    for layer, site in sorted({(int(m[1]), Site(m[2])) for m in map(_LORA.match, file.tensors) if m}):
        a = reader.take(f"lora.{layer}.{site.value}.a", (None, None))
        b = reader.take(f"lora.{layer}.{site.value}.b", (None, a.shape[0]))
        lora[layer, site] = Lora(a, b)
    bottleneck = {}
    for layer, place in sorted({(int(m[1]), Placement(m[2])) for m in map(_BOTTLENECK.match, file.tensors) if m}):
        name = f"bottleneck.{layer}.{place.value}"
        down = reader.take(f"{name}.down", (None, None))
        rank, hidden = down.shape
        bottleneck[layer, place] = Bottleneck(
            down,
            reader.take(f"{name}.down_bias", (rank,)),
            reader.take(f"{name}.up", (hidden, rank)),
            reader.take(f"{name}.up_bias", (hidden,)),
        )
    head = _decode_head(reader, config["head"]) if config["head"] is not None else None
    estimator = _decode_estimator(reader) if "estimator.inner" in file.tensors else None
    reader.finish()
    return Adapter(
        kind=AdapterKind(config["kind"]),
        lora=lora,
        bottleneck=bottleneck,
        adapter_before_norm=_require_boolean(config["adapter_before_norm"]),
        activation=Activation(config["activation"]),
        head=head,
        estimator=estimator,
    )


def _decode_estimator(reader: TensorReader) -> Estimator:
    inner = reader.take("estimator.inner", (None, None))
    size, wide = inner.shape
    outer = reader.take("estimator.outer", (None, size))
    hidden = outer.shape[0]
    return Estimator(
        inner=inner,
        inner_bias=reader.take("estimator.inner_bias", (size,)),
        outer=outer,
        outer_bias=reader.take("estimator.outer_bias", (hidden,)),
        linear=reader.take("estimator.linear", (hidden, wide)),
        error=reader.take("estimator.error", (1,)),
    )


def _decode_head(reader: TensorReader, config: dict[str, Any]) -> Head:
    fields = {"pooling", "transform", "activation", "labels", "multi_label"}
    if set(config) != fields:
        raise ValueError(f"the head's fields are {sorted(config)}, expected {sorted(fields)}")
    labels = config["labels"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("the head's labels are not a list of names")
    out = reader.take("head.out", (len(labels), None))
    hidden = out.shape[1]
    has_dense = "head.dense" in reader.remaining
    return Head(
        pooling=Pooling(config["pooling"]),
        transform=Transform(config["transform"]),
        activation=Activation(config["activation"]),
        dense=reader.take("head.dense", (hidden, hidden)) if has_dense else None,
        dense_bias=reader.take("head.dense_bias", (hidden,)) if has_dense else None,
        out=out,
        out_bias=reader.take("head.out_bias", (len(labels),)),
        labels=tuple(labels),
        multi_label=_require_boolean(config["multi_label"]),
    )


def _require_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value
