"""Domain deltas: a LoRA on the lower layers, for a whole domain and never for a tenant.

The file is the canonical one of adapters (kind `lora`, no head); only the layers that it may hold differ, and that an
estimator of the domain's rows may come with it.
"""

from __future__ import annotations

from pathlib import Path

from hmi.adapters import Adapter, AdapterKind
from hmi.adapters.formats.canonical import load_adapter
from hmi.errors import AdapterRefused
from hmi.spec import HPLMSpec

__all__ = ["check_delta", "load_delta"]


def load_delta(path: Path, spec: HPLMSpec) -> Adapter:
    """Read a delta whole. Raises `AdapterRefused` with the reason where it is none or not one of `spec`'s."""
    delta = load_adapter(path)
    check_delta(delta, spec)
    return delta


def check_delta(delta: Adapter, spec: HPLMSpec) -> None:
    """Raises `AdapterRefused` unless every part can be applied to the lower layers of a model of `spec`."""
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
