"""Adapters from uploads: HMI's own file, or a folder saved by PEFT or AdapterHub, detected from the files.

A tensor or a setting that would have an effect and is not understood is refused, because ignoring it would give a wrong
answer that looks right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hmi.adapters import Adapter, AdapterKind
from hmi.adapters.formats import adapterhub, canonical, peft
from hmi.adapters.formats.config import ConfigReader
from hmi.adapters.formats.folder import AdapterFolder
from hmi.adapters.formats.tensors import MAX_BYTES
from hmi.errors import AdapterRefused
from hmi.spec import HPLMSpec

_MAX_NAME_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Origin:
    """What an uploaded folder says about its origin. None of it is applied or checked."""

    library: str  # PEFT, AdapterHub or HMI
    version: str | None  # The library's release
    model: str | None  # The model that the adapter was trained on


def read_adapter(
    folder: Path, spec: HPLMSpec, labels: Sequence[str] | None = None, *, max_bytes: int = MAX_BYTES
) -> Adapter:
    """Read the adapter in the folder and check it against the model of `spec`.

    `labels` are names of the head's outputs, in order; None keeps those of the format, LABEL_0, ... where it has none.
    `max_bytes` limits all weight files together. Raises `AdapterRefused`, naming file, tensor or setting, and reason.
    """
    adapter = _read(folder, spec, max_bytes)
    if labels is not None:
        adapter = _rename_labels(adapter, labels)
    adapter.validate(spec)
    return adapter


def read_delta(folder: Path, spec: HPLMSpec, *, max_bytes: int = MAX_BYTES) -> Adapter:
    """Read the domain delta in the folder, in any format of `read_adapter`. Raises `AdapterRefused`."""
    delta = _read(folder, spec, max_bytes)
    check_delta(delta, spec)
    return delta


def load_delta(path: Path, spec: HPLMSpec) -> Adapter:
    """Load a delta from HMI's own file. Raises `AdapterRefused` where it is not a delta for a model of `spec`."""
    delta = canonical.load_adapter(path)
    check_delta(delta, spec)
    return delta


def check_delta(delta: Adapter, spec: HPLMSpec) -> None:
    """Raises `AdapterRefused` unless `delta` is a LoRA on the lower layers of a model of `spec`, without a head."""
    if not spec.k:
        raise AdapterRefused("a base with k = 0 has no lower layers, and so no domain deltas")
    if delta.kind is not AdapterKind.LORA or not delta.lora or delta.bottleneck or delta.head is not None:
        raise AdapterRefused(f"a domain delta is a LoRA without a head, not an adapter of kind {delta.kind.value}")
    for (layer, site), part in delta.lora.items():
        name = f"lora.{layer}.{site.value}"
        if not 0 <= layer < spec.k:
            raise AdapterRefused(f"{name}: a domain delta may hold the lower layers 0..{spec.k - 1} only")
        part.check(name, spec.site_shape(site))
    if delta.estimator is not None:
        delta.estimator.check(spec.hidden_size)


def read_origin(folder: Path) -> Origin:
    """Return the origin of a folder that `read_adapter` accepts. Raises `AdapterRefused` for other folders."""
    files = AdapterFolder(folder, max_bytes=MAX_BYTES)
    if peft.CONFIG_FILE not in files.names:
        return Origin("HMI", None, None)
    config = files.config(peft.CONFIG_FILE)
    if config.is_null("peft_type"):
        version = _name(config, "version")
        return Origin("AdapterHub", version and version.removeprefix("adapters."), _name(config, "model_name"))
    return Origin("PEFT", _name(config, "peft_version"), _name(config, "base_model_name_or_path"))


def _name(config: ConfigReader, field: str) -> str | None:
    value = config.take(field)
    return value[:_MAX_NAME_CHARACTERS] if isinstance(value, str) and value else None


def _read(folder: Path, spec: HPLMSpec, max_bytes: int) -> Adapter:
    files = AdapterFolder(folder, max_bytes=max_bytes)
    if peft.CONFIG_FILE in files.names:
        config = files.config(peft.CONFIG_FILE)
        # Both libraries use this file name; only PEFT names its method in it.
        if not config.is_null("peft_type"):
            adapter = peft.read_peft(files, spec)
        elif not config.is_null("config"):
            adapter = adapterhub.read_adapterhub(files, spec)
        else:
            raise AdapterRefused(f"{peft.CONFIG_FILE} is neither PEFT's (peft_type) nor AdapterHub's (config)")
    elif canonical.FILE_NAME in files.names:
        adapter = canonical.decode_adapter(files.file(canonical.FILE_NAME))
    else:
        raise AdapterRefused(
            f"no adapter found: neither {canonical.FILE_NAME} nor {peft.CONFIG_FILE} is among the files"
        )
    files.finish()
    return adapter


def _rename_labels(adapter: Adapter, labels: Sequence[str]) -> Adapter:
    if adapter.head is None:
        raise AdapterRefused("labels were given, but the adapter has no head")
    if len(labels) != len(adapter.head.labels):
        raise AdapterRefused(f"{len(labels)} labels were given, but the head has {len(adapter.head.labels)} outputs")
    return dataclasses.replace(adapter, head=dataclasses.replace(adapter.head, labels=tuple(labels)))
